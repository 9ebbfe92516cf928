"""What the pages name is there: files, links, rooms, targets, tests."""

import itertools
import re
import tomllib

import pytest

from lodestream.expressions.functions import AGGREGATES, SCALARS
from tests.docs.pages import ROOT, pages, prose, read

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_NAMED = re.compile(r"`([^`\n]+)`")
_PATH = re.compile(r"(?:\.github|bench|docs|src|tests|tools|requirements)/[\w./-]+|[\w/]+\.(?:py|md|toml)")
ROOMS = ROOT / "src" / "lodestream"


def anchors(page: str) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    heads = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", pages())
def test_links_lead_somewhere(page):
    for link in _LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = ((ROOT / page).parent / path).resolve() if path else ROOT / page
        assert target.exists(), f"{page}: {link}"
        if anchor:
            assert anchor in anchors(target.relative_to(ROOT).as_posix()), f"{page}: {link}"


@pytest.mark.parametrize("page", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md"])
def test_files_that_are_named_are_there(page):
    text = prose(page)
    for name in _NAMED.findall(text):
        if not _PATH.fullmatch(name.rstrip("/")):
            continue
        places = [ROOT / name, ROOMS / name, *([] if "/" in name else ROOMS.rglob(name))]
        assert any(place.exists() for place in places), f"{page}: {name}"


def test_the_number_of_functions_is_that_of_the_whitelist():
    told = {page: re.findall(r"(\d+) functions", prose(page)) for page in pages()}
    numbers = {number for found in told.values() for number in found}
    assert told["README.md"]
    assert told["docs/guides/declaring.md"]
    assert numbers == {str(len(SCALARS) + len(AGGREGATES))}


def test_make_targets_that_are_named_are_there():
    targets = set(re.findall(r"^([a-z-]+):", read("Makefile"), re.MULTILINE))
    named = {name for page in pages() for name in re.findall(r"`make ([\w-]+)`", read(page))}
    assert named
    assert named <= targets


def test_the_map_has_every_room_at_its_height():
    """The rooms of the table are those of the code, and stand in the order that lint-imports holds."""
    rows = re.findall(r"^\| \d+ \| (.+?) \|", read("ARCHITECTURE.md"), re.MULTILINE)
    shown = [[room.split("/")[0] for room in re.findall(r"`([\w/]+)`", row)] for row in rows]
    flat = [room for row in shown for room in row]
    rooms = [path for path in ROOMS.iterdir() if path.suffix == ".py" or any(path.rglob("*.py"))]
    there = {path.stem for path in rooms if not path.name.startswith("_")}
    assert {*flat} | {"version"} == there
    layers = tomllib.loads(read("pyproject.toml"))["tool"]["importlinter"]["contracts"][0]["layers"]
    height = {room: -i for i, layer in enumerate(layers) for room in re.findall(r"\w+", layer)}
    heights = [{height[room] for room in row} for row in shown]
    for lower, upper in itertools.pairwise(heights):
        assert max(lower) <= min(upper)


def test_every_guide_and_reference_is_reached_from_the_readme():
    linked = {link.partition("#")[0] for link in _LINK.findall(prose("README.md"))}
    assert {page for page in pages() if page.startswith("docs/")} <= linked
