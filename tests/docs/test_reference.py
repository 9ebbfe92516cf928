"""The generated reference is what the code says, and the code says something of everything."""

import inspect
import re

import pytest

from lodestream import errors
from lodestream.cli.root import VERBS
from lodestream.ports.plugins import load, names
from lodestream.ports.settings import Settings
from lodestream.project.codes import CODES
from tests.docs.pages import ROOT, blocks, pages
from tools import lake_reference
from tools.reference import FOLDER, PAGES, error_classes, fields

SOURCE = ROOT / "src" / "lodestream"
CODE = re.compile(r"\"([DLPN]\d{3})\"")
DECLARED = ("project/codes.py", "expressions/errors.py")


@pytest.fixture(scope="module")
def written():
    return {name: write() for name, write in PAGES.items()}


@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_what_the_code_says(written, name):
    assert (FOLDER / name).read_text(encoding="utf-8") == written[name], "run: python -m tools.reference"


@pytest.mark.parametrize("room", ["sources", "formats", "sinks", "enrichers"])
def test_every_component_and_setting_is_described(written, room):
    assert names(room)
    for name in names(room):
        component = load(room, name)
        assert (inspect.getdoc(component) or "") in written["components.md"]
        assert component.__doc__, name
        for field, kind, default, text in fields(component.settings):
            assert text, f"{room} {name}: setting {field} has no docstring"
            assert f"| `{field}` | {kind} | {default} | {text} |" in written["components.md"]


def test_a_setting_without_a_docstring_is_seen():
    class Loose(Settings):
        """One that says nothing of its field."""

        rate: float = 1.0

    assert fields(Loose) == [("rate", "number", "`1.0`", "")]


def test_every_error_class_is_described(written):
    known = {*error_classes()}
    assert {name for name, one in vars(errors).items() if inspect.isclass(one)} == {one.__name__ for one in known}
    for one in known:
        assert "__doc__" in vars(one), f"{one.__name__} has no docstring"
        assert f"| `{one.__name__}` | {one.exit_code} |" in written["errors.md"]


def test_every_code_is_described_and_used(written):
    used = {
        code
        for file in SOURCE.rglob("*.py")
        if not file.as_posix().endswith(DECLARED)
        for code in CODE.findall(file.read_text(encoding="utf-8"))
    }
    assert used == {*CODES}
    for code, told in CODES.items():
        assert told.remedy, code
        assert f"| `{code}` |" in written["errors.md"]


def test_every_reason_of_a_format_is_described():
    page = (ROOT / "docs/guides/quarantine.md").read_text(encoding="utf-8")
    raised = re.compile(r"Bad(Record|Value)Error\(\"(\w+)\"")
    found = {match for file in (SOURCE / "formats").glob("*.py") for match in raised.findall(file.read_text())}
    assert found
    for kind, what in found:
        code = f"parse:{what}" if kind == "Record" else f"parse:COLUMN:{what}"
        assert f"`{code}`" in page, f"docs/guides/quarantine.md does not say what {code} means"


def test_every_verb_is_shown_by_a_page_and_every_page_shows_verbs_that_are():
    shown = {
        found
        for page in pages()
        for block in blocks(page)
        if block.language == "sh"
        for found in re.findall(r"^(?:.*&& )?lodestream (\w+)", block.text, re.MULTILINE)
    }
    verbs = {verb for group in VERBS.values() for verb in group}
    assert verbs == shown


def test_a_column_without_words_is_seen(monkeypatch):
    monkeypatch.delitem(lake_reference.COLUMNS, "_digest")
    with pytest.raises(KeyError, match="_digest"):
        lake_reference.tables("")
    monkeypatch.undo()
    monkeypatch.delitem(lake_reference.FILES, "<layer>/<table>/_delta_log/_last_checkpoint")
    with pytest.raises(ValueError, match="_last_checkpoint"):
        lake_reference.tables("")
