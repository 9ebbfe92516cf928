"""Take the screenshots of docs/images/ from the demo as it runs: `python -m tools.screenshots`."""

import argparse
import contextlib
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tools import chromium

IMAGES = Path(__file__).parents[1] / "docs" / "images"
BYTES_MAX = 200_000
SIZE = {"width": 1360, "height": 850}
THEMES = ("dark", "light")
_START_S = 900
_QUERY = (
    "select origin, conditions, count(*) as flights,\n"
    "       round(100.0 * sum(case when cancelled then 1 else 0 end) / count(*), 2) as cancelled_percent,\n"
    "       round(avg(dep_delay), 1) as delay_minutes\n"
    "from silver.flights\nwhere conditions is not null\ngroup by all\norder by cancelled_percent desc"
)
# Name, path, and what is there once the page has come.
SHOTS = (
    ("home", "/", "[data-figure=rows-gold]"),
    ("flow", "/flow", ".react-flow__node"),
    ("tables", "/tables/silver.flights?sort=dep_delay.desc", ".grid-row"),
    ("lineage", "/tables/gold.delay_by_carrier?tab=lineage&column=arr_delay_mean", ".lineage-place"),
    ("sql", "/sql?q=", ".sql-editor"),
    ("quality", "/quality/silver.flights_feed?reason=expect:positive_distance", ".aside-turn"),
    ("dashboard", "/dashboards/flights", ".bars"),
)


@contextlib.contextmanager
def demo() -> Iterator[str]:
    """The demo with everything started; gives the address with its token."""
    with tempfile.TemporaryDirectory(prefix="lodestream-screenshots-") as folder:
        log = Path(folder, "log")
        command = [sys.executable, "-m", "lodestream.cli", "demo", "--up", "--folder", str(Path(folder, "demo"))]
        with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT) as process:
            try:
                yield _address(process, log)
            finally:
                process.terminate()
                process.wait(60)


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    end = time.monotonic() + _START_S
    while time.monotonic() < end and process.poll() is None:
        if found := re.search(r"http://\S+/#token=\S+", log.read_text(encoding="utf-8", errors="replace")):
            return found[0]
        time.sleep(1)
    raise SystemExit("the demo did not start:\n" + log.read_text(encoding="utf-8", errors="replace")[-2000:])


def shoot(address: str, target: Path, rest_s: float) -> list[Path]:
    """One picture of each screen in dark and light."""
    from playwright.sync_api import sync_playwright

    path, why = chromium.find()
    if path is None:
        raise SystemExit(why)
    target.mkdir(parents=True, exist_ok=True)
    base, _, token = address.partition("/#token=")
    made = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(chromium.FLAGS))
        for theme in THEMES:
            context = browser.new_context(viewport=SIZE, color_scheme=theme, reduced_motion="reduce")
            page = context.new_page()
            page.goto(f"{base}/#token={token}")
            page.locator(".live-live").wait_for(timeout=60_000)
            page.wait_for_timeout(rest_s * 1000 if theme == THEMES[0] else 1000)
            for name, where, there in SHOTS:
                made.append(_shot(page, base, target / f"{name}-{theme}.png", where, there))
            context.close()
        browser.close()
    return made


def _shot(page: Any, base: str, file: Path, where: str, there: str) -> Path:
    if where == "/sql?q=":
        text = json.dumps({"tabs": [{"id": "a", "text": _QUERY}], "current": "a"})
        page.evaluate("text => localStorage.setItem('lodestream.sql', text)", text)
        where = "/sql"
    page.goto(f"{base}{where}")
    page.locator(there).first.wait_for(timeout=60_000)
    if where == "/sql":
        page.locator(".cm-content").click()
        page.keyboard.press("Control+Enter")
        page.locator(".grid-row").first.wait_for(timeout=60_000)
    if where.startswith("/quality/"):
        page.locator(".aside-turn").first.click()
        page.locator(".aside-values").wait_for()
    page.mouse.move(0, 0)
    page.wait_for_timeout(1500)
    page.screenshot(path=str(file))
    size = file.stat().st_size
    if size > BYTES_MAX:
        raise SystemExit(f"{file.name} has {size} bytes; {BYTES_MAX} are allowed")
    return file


def main() -> None:
    """Start the demo and look at it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", help="A server that runs already, as `lodestream up` prints it.")
    parser.add_argument("--target", type=Path, default=IMAGES, help="Folder of the pictures.")
    parser.add_argument("--rest", type=float, default=45.0, help="Seconds to watch before the first picture.")
    given = parser.parse_args()
    with contextlib.nullcontext(given.url) if given.url else demo() as address:
        for file in shoot(address, given.target, given.rest):
            print(f"{file.name}: {file.stat().st_size} bytes")


if __name__ == "__main__":
    main()
