"""A small project that is served and moves, and a browser that looks at it and keeps all that goes wrong."""

import contextlib
import json
import queue
import re
import subprocess
import sys
import threading
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))  # makes the top-level package `tools` importable

from tools import chromium, console

FILES = {
    "lodestream.yaml": "project: shop\nlake: lake\n",
    "policies.yaml": (
        "users:\n  eva: {groups: [germany]}\ngrants:\n  - {to: group:germany, select: [gold.revenue_by_country]}\n"
        "row_filters:\n  own_country:\n    on: [gold.revenue_by_country]\n    where: country = 'DE'\n"
    ),
    "tables/bronze/orders.yaml": (
        "source: {files: {path: incoming, settle: 0 s}}\nformat: json\nkeep_raw: true\ncolumns: {order_id: string, "
        'ordered_at: timestamp, country: string, amount: "decimal(12,2)"}\n'
    ),
    "tables/silver/orders.yaml": (
        "from: stream(bronze.orders)\nderive: {country: upper(country)}\nexpect:\n"
        "  positive: {that: amount > 0, else: quarantine}\n  known: {that: country is not null, else: warn}\n"
        "event_time: {column: ordered_at, delay: 1 minute}\ndedup: {keys: [order_id]}\n"
    ),
    "tables/gold/revenue_per_minute.yaml": (
        "from: stream(silver.orders)\nevent_time: {column: ordered_at, delay: 1 minute}\nwindow: {every: 1 minute}\n"
        "group_by: [country]\nmeasures: {orders: count(*), revenue: sum(amount)}\nemit: updates\n"
    ),
    "tables/gold/revenue_by_country.yaml": (
        "sql: |\n  select country, count(*) as orders, sum(amount) as revenue from silver.orders group by country\n"
    ),
    "dashboards/shop.yaml": (
        "title: The shop\ncomment: What comes in.\nrefresh: 1 s\npanels:\n"
        "  - {title: Orders, kind: number, sql: select count(*) as n from silver.orders, unit: orders, width: 3}\n"
        "  - {title: About, kind: text, text: 'Orders of **every** country.', width: 9}\n"
        "  - title: Revenue by country\n    kind: bar\n    x: country\n    y: revenue\n"
        "    sql: select country, revenue from gold.revenue_by_country order by revenue desc\n"
        "  - title: Revenue per minute\n    kind: line\n    x: window_start\n    y: revenue\n    series: country\n"
        "    sql: select window_start, country, revenue from gold.revenue_per_minute order by window_start\n"
        "  - {title: Rows, kind: table, width: 12, sql: select * from silver.orders order by order_id limit 50}\n"
    ),
}  # fmt: skip
COUNTRIES = ("DE", "FR", "PL", "ES", "IT")
_START_S = 60.0


@dataclass
class Site:
    """A project that `lodestream serve --run` serves."""

    root: Path
    url: str = ""
    token: str = ""
    sent: int = 0
    process: subprocess.Popen | None = None

    def order(self, number, **more):
        minute, second = divmod(number * 7, 60)
        hour, minute = divmod(minute, 60)
        return {
            "order_id": f"o{number}", "ordered_at": f"2026-03-01T{8 + hour % 12:02}:{minute:02}:{second:02}Z",
            "country": COUNTRIES[number % 5], "amount": 10 + number % 90,
        } | more  # fmt: skip

    def send(self, count=20, **more):
        """One more file of orders. Returns the number of the first."""
        first = self.sent
        lines = [json.dumps(self.order(first + i, **more)) + "\n" for i in range(count)]
        self.sent += count
        part = self.root / "incoming" / f".{first:06}.part"
        part.write_text("".join(lines), encoding="utf-8")
        part.rename(part.with_name(f"{first:06}.jsonl"))
        return first

    def get(self, path):
        answer = httpx.get(f"{self.url}{path}", headers={"Authorization": f"Bearer {self.token}"}, timeout=30)
        answer.raise_for_status()
        return answer.json()

    def table(self, name):
        return next(one for one in self.get("/api/overview")["tables"] if one["table"] == name)

    def wait(self, done, what, seconds=60.0):
        end = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < end, what
            time.sleep(0.1)


def _lines(stream):
    """Lines of a process, read beside it so that it never waits for a reader."""
    found = queue.Queue()

    def read():
        for line in stream:
            found.put(line)

    threading.Thread(target=read, daemon=True).start()
    return found


@contextlib.contextmanager
def serving(root):
    """Serve and run a project until the end."""
    command = [sys.executable, "-m", "lodestream.cli", "-C", str(root), "serve", "--port", "0", "--run"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        site = Site(root, process=process)
        lines, said = _lines(process.stdout), ""
        try:
            end = time.monotonic() + _START_S
            while not (site.url and site.token):
                with contextlib.suppress(queue.Empty):
                    said += lines.get(timeout=0.2)
                assert process.poll() is None, said
                assert time.monotonic() < end, said
                site.url = (re.search(r"http://127\.0\.0\.1:\d+", said) or [""])[0]
                site.token = (re.search(r"dev_[\w-]+", said) or [""])[0]
            yield site
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            if process.poll() is None:
                process.kill()


@pytest.fixture(scope="package")
def site(tmp_path_factory):
    root = tmp_path_factory.mktemp("shop")
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    (root / "incoming").mkdir()
    with serving(root) as found:
        found.send(200)
        found.wait(lambda: (found.table("silver.orders")["rows"] or 0) >= 200, "the first orders are in silver")
        found.wait(lambda: (found.table("gold.revenue_by_country")["rows"] or 0) >= 5, "gold is computed")
        yield found


@pytest.fixture(scope="module")
def browser():
    """A browser for one file of tests: while it is there, an event loop runs, and other tests bring their own."""
    path, why = chromium.find()
    if path is None:
        pytest.skip(why)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from playwright.sync_api import sync_playwright
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, args=list(chromium.FLAGS))
        yield found
        found.close()


@pytest.fixture(scope="session")
def axe():
    """The text of axe-core, which looks for what keeps people from using a page."""
    if reason := console.missing():
        pytest.skip(reason)
    console.install()
    return (console.WEB / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8")


VIOLATIONS = """
window.__violations = [];
document.addEventListener("securitypolicyviolation", (event) =>
  window.__violations.push(`${event.effectiveDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`));
"""


@dataclass
class Watched:
    """A page, and all that went wrong on it."""

    page: object
    origin: str
    errors: list = field(default_factory=list)
    foreign: list = field(default_factory=list)
    bytes: dict = field(default_factory=dict)

    def __post_init__(self):
        self.page.add_init_script(VIOLATIONS)
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.errors.append(f"uncaught: {error}"))
        self.page.on("request", self._request)

    def _console(self, message):
        if message.type in ("error", "warning"):
            self.errors.append(f"{message.type}: {message.text} {message.location.get('url', '')}")

    def _request(self, request):
        if not request.url.startswith((f"{self.origin}/", "blob:", "data:")):
            self.foreign.append(request.url)

    def open(self, path):
        self.page.goto(f"{self.origin}{path}")

    def sign_in(self, token, path="/"):
        """By the address that `lodestream up` prints."""
        self.open(f"{path}#token={token}")
        self.page.locator(".sidebar").wait_for()

    def check(self):
        """Nothing went wrong since the last time."""
        found = self.errors + self.page.evaluate("window.__violations") + self.foreign
        self.errors.clear()
        self.foreign.clear()
        assert found == []


@pytest.fixture
def fresh(browser, site):
    """A page of somebody who has not signed in."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    yield Watched(context.new_page(), site.url)
    context.close()


@pytest.fixture
def watched(fresh, site):
    """A page of whoever holds the lake."""
    fresh.sign_in(site.token)
    yield fresh
    fresh.check()
