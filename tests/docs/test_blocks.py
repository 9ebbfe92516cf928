"""Everything that the pages show is run: declarations compile, commands work, code runs, outputs are what comes."""

import os
import re
import shutil
from contextlib import ExitStack, nullcontext
from pathlib import Path

import pytest

from lodestream.planning.compile import compile_project
from lodestream.project.load import load_project
from tests.docs.demo import make_small_demo
from tests.docs.pages import LANGUAGES, OUTPUT, ROOT, Block, blocks, pages, split
from tests.docs.shell import Shell, bare
from tests.enrichers.service import serving
from tests.npm import NoNpmError
from tests.stores.emulators import ACCOUNT, AZURITE_KEY, azurite, make_container

INSTEAD = {
    "lodestream run": "lodestream run --until-idle",
    "lodestream chaos --kills 20": "lodestream chaos --kills 2",
    "lodestream replicate dr --every 30s": "lodestream replicate dr",
}
"""Commands that take long or never end, and what is run in their place."""

ELSEWHERE = {
    "lodestream chaos --kills 200": "tests/operations/test_chaos.py",
    "rm -rf demo-lake": "tests/demo/test_demo.py",
    "lodestream run --metrics-port 9100": "tests/cli/test_run.py",
    "lodestream registry": "tests/cli/test_registry.py",
    "lodestream registry --port 8085 --store /var/lib/registry.db": "tests/cli/test_registry.py",
    "lodestream registry --store postgresql://registry@db.example/registry": "tests/apis/registry/test_races.py",
    "lodestream registry --users users.txt": "tests/apis/registry/test_access.py",
    "lodestream registry --host 0.0.0.0 --users users.txt --certificate a.pem --key a.key --client-ca ca.pem": (
        "tests/apis/registry/test_access.py"
    ),
    "lodestream run --engine spark --until-idle": "tests/engines/spark/test_on_spark.py",
    "lodestream run --engine spark --master spark://head:7077": "tests/engines/spark/test_cluster.py",
    "lodestream run --engine spark --remote sc://head:15002": "tests/engines/spark/test_remote.py",
    "lodestream run --engine spark --checkpoints /Volumes/shop/lodestream/checkpoints": (
        "tests/engines/spark/test_on_spark.py"
    ),
    "lodestream tail silver.orders -f": "tests/cli/test_run.py",
    "lodestream serve": "tests/cli/test_serve.py",
    "lodestream up": "tests/cli/test_up.py",
    "lodestream postgres": "tests/cli/test_up.py",
    "lodestream demo --up": "tests/cli/test_two_users.py",
    'curl -H "Authorization: Bearer $TOKEN" -H "Content-Type: application/json" '
    """-d '{"order_id":"a1","amount":"9.50"}' http://127.0.0.1:8080/ingest/orders""": "tests/apis/test_ingest.py",
    "lodestream demo --once & sleep 3; kill -9 $!": "tests/demo/test_demo.py",
    "lodestream demo --once & sleep 2; kill -9 $!": "tests/demo/test_demo.py",
    "lodestream demo --once": "tests/demo/test_demo.py",
    ".venv/bin/python -m bench.spine --events 100000": "tests/bench/test_spine.py",
    ".venv/bin/python -m bench.spine --no-spark": "tests/bench/test_spine.py",
    ".venv/bin/python -m bench.spine --profile": "tests/bench/test_spine.py",
    ".venv/bin/python -m bench.spine --portable": "tests/bench/test_spine.py",
    '.venv/bin/python -m bench.kafka --events 1000000 --seconds 0 --only drain --peers ""': "tests/bench/test_kafka.py",
    '.venv/bin/python -m bench.kafka --only latency --rate 20000 --latency-seconds 30 --peers ""': (
        "tests/bench/test_kafka.py"
    ),
    '.venv/bin/python -m bench.kafka --only "" --peers spark': "tests/bench/test_kafka.py",
    ".venv/bin/python -m bench.kafka --profile": "tests/bench/test_kafka.py",
    ".venv/bin/python -m bench.kafka --portable": "tests/bench/test_kafka.py",
    ".venv/bin/python -m bench.lake --part commits --marks 100 1000": "tests/bench/test_lake.py",
    ".venv/bin/python -m bench.lake --part old --entries 100000 --files 10000": "tests/bench/test_lake.py",
    ".venv/bin/python -m bench.serve --quick": "tests/bench/test_serve.py",
    ".venv/bin/python -m bench.serve --only rest changes --no-postgres": "tests/bench/test_serve.py",
    ".venv/bin/python -m bench.serve --rows 1000000 --connections 32 --keep": "tests/bench/test_serve.py",
}
"""Commands that are not run here, and the test that runs them or what they stand for."""

PAGES_ELSEWHERE = {
    "docs/guides/declaring.md": "tests/planning/test_guide.py",
    "docs/guides/postgres.md": "tests/apis/postgres/test_guide.py",
    "docs/guides/rest.md": "tests/apis/rest/test_guide.py",
    "docs/guides/sharing.md": "tests/apis/sharing/test_guide.py",
}
"""Pages whose yaml, python and text blocks another test holds."""

COMMANDS_TOO = {"docs/guides/postgres.md", "docs/guides/rest.md", "docs/guides/sharing.md"}
"""Those of them whose commands that test runs."""

NEEDS_KAFKA = {"docs/guides/kafka.md", "docs/guides/kafka-out.md"}
"""Pages that are run with a broker, whose address is in `KAFKA`."""

ASKS = {"docs/guides/enrichment.md"}
"""Pages that ask a service on loopback, whose address is in `SCORE_URL`."""

NEEDS_STORE = {"docs/guides/stores.md"}
"""Pages whose lake is in an object store on loopback, named by `LAKE`, `AZURE_KEY` and `AZURE_ENDPOINT`."""

SHOWN = [page for page in pages() if page not in PAGES_ELSEWHERE and blocks(page)]


class Page:
    """One page at work: its files, its shell, what it said last."""

    def __init__(self, folder: Path) -> None:
        self.shell = Shell(folder, INSTEAD, ELSEWHERE)
        self.said: str | None = None
        self._root = folder
        self._declared: set[Path] = set()

    def show(self, block: Block) -> None:
        if OUTPUT in block.marks:
            assert self.said is not None, f"{block.place}: no command before this output"
            compare(block, self.said)
            return
        if block.language == "yaml":
            self._write(block)
            return
        self.compile(block.place)
        if block.language == "sh":
            self.shell.run(block.text, block.place)
            self.said = self.shell.said
        elif block.language == "python":
            os.chdir(self.shell.folder)
            exec(compile("\n" * block.line + block.text, block.page, "exec"), {})

    def _write(self, block: Block) -> None:
        assert block.file, f"{block.place}: the first line names no file, such as `# tables/silver/orders.yaml`"
        path = self.shell.folder / block.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text)
        if path.parent.name == "tests":
            self.shell.lodestream(["test", block.file], 0, block.place)
        else:
            self._declared.add(self.shell.folder)

    def compile(self, place: str) -> None:
        """Load and compile what was declared since the last time; a page may leave `lodestream.yaml` out."""
        for folder in self._declared:
            if not (folder / "lodestream.yaml").exists():
                (folder / "lodestream.yaml").write_text("project: page\nlake: lake\n")
            assert compile_project(load_project(str(folder)), {}).flows, f"{place}: no tables"
        self._declared.clear()


def compare(block: Block, said: str) -> None:
    """Every line of the block is a line of the output, in that order; `…` stands for anything."""
    rest = [" ".join(line.split()) for line in said.splitlines()]
    for line in filter(None, (" ".join(line.split()) for line in block.text.splitlines())):
        wanted = re.compile(".*".join(re.escape(part.strip()) for part in line.split("…")))
        at = next((i for i, one in enumerate(rest) if wanted.fullmatch(one)), None)
        assert at is not None, f"{block.place}: nothing printed {line!r}; it was\n{said}"
        del rest[: at + 1]


@pytest.mark.parametrize("page", SHOWN)
def test_what_the_page_shows_works(page, tmp_path, monkeypatch, request):
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)
    monkeypatch.chdir(tmp_path)
    if page == "docs/guides/demo.md":
        make_small_demo(tmp_path / "demo-lake")
    if page in NEEDS_KAFKA:
        monkeypatch.setenv("KAFKA", request.getfixturevalue("kafka").plain)
    with serving() if page in ASKS else nullcontext() as service, ExitStack() as stack:
        if page in NEEDS_STORE:
            try:
                url = stack.enter_context(azurite(tmp_path / "azurite"))
            except NoNpmError as reason:
                pytest.skip(str(reason))
            make_container(url, "lake")
            monkeypatch.setenv("LAKE", f"abfss://lake@{ACCOUNT}.dfs.core.windows.net/shop")
            monkeypatch.setenv("AZURE_KEY", AZURITE_KEY)
            monkeypatch.setenv("AZURE_ENDPOINT", f"{url}/{ACCOUNT}")
        if service is not None:
            monkeypatch.setenv("SCORE_URL", service.url)
        shown = Page(tmp_path)
        for block in blocks(page):
            shown.show(block)
        shown.compile(page)


@pytest.mark.parametrize("page", pages())
def test_every_block_says_what_it_is(page):
    for block in blocks(page):
        assert block.language in LANGUAGES, f"{block.place}: a block of {block.language!r} would not be checked"
        assert set(block.marks) <= {OUTPUT}, f"{block.place}: unknown marks {block.marks}"
        assert block.language != "yaml" or block.file, f"{block.place}: the first line names no file"
        if page in PAGES_ELSEWHERE:
            runs = block.language != "sh" or page in COMMANDS_TOO
            assert runs, f"{block.place}: {PAGES_ELSEWHERE[page]} runs no commands"


def test_the_lists_of_exceptions_hold_nothing_else():
    lines = {bare(line) for page in pages() for block in blocks(page) for line in block.text.splitlines()}
    assert not {*INSTEAD, *ELSEWHERE} - lines
    for where in {*ELSEWHERE.values(), *PAGES_ELSEWHERE.values()}:
        assert (ROOT / where).is_file(), where


def test_the_checks_can_fail(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.rmtree(tmp_path, ignore_errors=True)
    tmp_path.mkdir()

    def refused(text, says):
        page = Page(tmp_path)

        def walk():
            for block in split("x.md", text):
                page.show(block)
            page.compile("x.md")

        with pytest.raises(BaseException, match=says):
            walk()

    refused("```sh\nlodestream statsu\n```\n", "ended with")
    refused("```sh\nlodestream version --loud\n```\n", "ended with")
    refused("```sh\nlodestream version   # ends with 3\n```\n", "ended with 0")
    refused("```sh\nlodestream version\n```\n```text output\nlodestream 9\n```\n", "nothing printed")
    refused("```sh\nlodestream run --table silver.orders\n```\n", "never ends")
    refused("```sh\nlodestream registry --port 0\n```\n", "never ends")
    refused("```sh\nlodestream tail silver.orders --follow\n```\n", "never ends")
    refused("```sh\ncurl example.org\n```\n", "runs no 'curl'")
    refused("```sh\nmake nothing\n```\n", "make nothing")
    refused('```python\nassert 1 == 2, "no"\n```\n', "no")
    refused("```yaml\nfrom: x\n```\n", "names no file")
    refused("```yaml\n# tables/silver/a.yaml\nfrom: stream(bronze.a)\n```\n", "D201")
    refused("   ```sh\n   rm\n   ```\n", "indented")
    refused("```sh\nlodestream version\n", "not closed")
