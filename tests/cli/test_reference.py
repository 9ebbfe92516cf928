import runpy
from pathlib import Path

from lodestream.cli.root import VERBS

_TOOL = runpy.run_path(str(Path(__file__).parents[2] / "tools" / "cli_reference.py"))
PAGE, page = _TOOL["PAGE"], _TOOL["page"]


def test_the_reference_is_what_the_program_says():
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m tools.cli_reference"


def test_every_verb_and_option_is_described():
    text = page()
    for verbs in VERBS.values():
        for name in verbs:
            assert f"lodestream {name}" in text
    assert "|  |" not in text
