"""The built console: that it is of these sources, small, whole, and asks nobody else for anything."""

import hashlib
import json
import re
import shutil
import subprocess

import pytest

from tools import console

FIRST_MAX = 180_000
ROUTE_MAX = 250_000
ALL_MAX = 1_500_000
SCREENS = {"Home", "Flow", "Tables", "TablePage", "Sql", "Quality", "TableQuality", "Dashboards", "DashboardPage"}
# Names of XML dialects and addresses that libraries put into error texts; nothing asks for them.
MENTIONED = re.compile(
    r"https?://(www\.w3\.org/|react\.dev/errors|reactjs\.org|reactflow\.dev|tanstack\.com|github\.com/|\$\{|localhost)"
)
MANIFEST = json.loads((console.STATIC / console.MANIFEST).read_text(encoding="utf-8"))
FILES = sorted(path for path in console.STATIC.rglob("*") if path.is_file() and path.name != console.MANIFEST)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    if reason := console.missing():
        pytest.skip(reason)
    target = tmp_path_factory.mktemp("console") / "static"
    console.build(target)
    return target


def test_the_bundle_is_of_these_sources():
    assert MANIFEST["sources"] == console.source_digest(), "run `make console` and commit what it builds"


def test_the_bundle_is_what_the_manifest_says():
    found = {path.relative_to(console.STATIC).as_posix(): path for path in FILES}
    assert found.keys() == MANIFEST["files"].keys()
    for name, path in found.items():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == MANIFEST["files"][name]["sha256"], name


def test_building_it_again_gives_the_same(built):
    again = {path.relative_to(built).as_posix(): path.read_bytes() for path in built.rglob("*") if path.is_file()}
    here = {
        path.relative_to(console.STATIC).as_posix(): path.read_bytes()
        for path in [*FILES, console.STATIC / console.MANIFEST]
    }
    assert again.keys() == here.keys()
    assert [name for name in here if again[name] != here[name]] == []


def test_a_changed_source_changes_the_digest(tmp_path):
    for name in console.SOURCES:
        source, copy = console.WEB / name, tmp_path / name
        shutil.copytree(source, copy) if source.is_dir() else shutil.copy(source, copy)
    assert console.source_digest(tmp_path) == console.source_digest()
    with (tmp_path / "src" / "format.ts").open("a", encoding="utf-8") as file:
        file.write("\n")
    assert console.source_digest(tmp_path) != console.source_digest()


def loaded(names):
    return sum(console.packed(console.STATIC / name) for name in names)


def test_it_is_small():
    assert loaded(MANIFEST["first"]) <= FIRST_MAX
    assert MANIFEST["screens"].keys() == SCREENS
    # The first screen anybody sees is Home.
    assert loaded(MANIFEST["screens"]["Home"]) <= FIRST_MAX
    assert {name: size for name, files in MANIFEST["screens"].items() if (size := loaded(files)) > ROUTE_MAX} == {}
    assert sum(path.stat().st_size for path in FILES) <= ALL_MAX


def test_names_change_with_their_content_and_no_maps_are_shipped():
    for path in FILES:
        name = path.relative_to(console.STATIC).as_posix()
        if name not in ("index.html", console.LICENCES):
            assert re.fullmatch(r"assets/[\w.-]+-[\w-]{8}\.(js|css|svg)", name), name
        assert b"sourceMappingURL" not in path.read_bytes(), name


def test_licences_of_what_is_built_in_are_shipped():
    text = (console.STATIC / console.LICENCES).read_text(encoding="utf-8")
    found = dict(re.findall(r"^## (\S+) - \S+ \(([^\n]+)\)$", text, re.MULTILINE))
    assert set(found.values()) <= {"MIT", "ISC", "BSD-2-Clause", "BSD-3-Clause", "Apache-2.0", "0BSD", "OFL-1.1"}
    wanted = json.loads((console.WEB / "package.json").read_text(encoding="utf-8"))["dependencies"]
    assert found.keys() >= wanted.keys()


def test_it_asks_nobody_else_and_runs_no_text():
    for path in (path for path in FILES if path.name != console.LICENCES):
        text = path.read_text(encoding="utf-8")
        foreign = [address for address in re.findall(r"https?://[^\s\"'`)]+", text) if not MENTIONED.match(address)]
        assert foreign == [], path.name
        assert re.search(r"\beval\(|new Function\(|\bFunction\(['\"]", text) is None, path.name
    index = (console.STATIC / "index.html").read_text(encoding="utf-8")
    assert re.search(r"<script(?![^>]* src=\"/assets/)|<style|\sstyle=|\son\w+=", index) is None


def test_no_source_writes_markup_into_the_page():
    for path in (console.WEB / "src").rglob("*.ts*"):
        text = path.read_text(encoding="utf-8")
        assert re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|srcdoc", text) is None, path.name


def test_the_lock_names_no_host_and_every_package_has_its_digest():
    lock = json.loads((console.WEB / "package-lock.json").read_text(encoding="utf-8"))
    packages = {name: one for name, one in lock["packages"].items() if name}
    assert len(packages) > 100
    assert [name for name, one in packages.items() if "resolved" in one] == []
    assert [name for name, one in packages.items() if not one.get("integrity", "").startswith("sha512-")] == []


def test_the_pure_parts(built):
    done = subprocess.run(
        ["npm", "exec", "--", "vitest", "run", "--reporter=dot"],
        cwd=console.WEB, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_asks_only_for_what_the_server_has(tmp_path):
    """Each path in the sources is one of the OpenAPI document, with a method that it has."""
    from lodestream.app import open_project

    (tmp_path / "tables" / "bronze").mkdir(parents=True)
    (tmp_path / "lodestream.yaml").write_text("project: small\nlake: lake\n")
    (tmp_path / "tables" / "bronze" / "events.yaml").write_text(
        "source: {files: {path: events}}\nformat: json\ncolumns: {id: string}\n"
    )
    app = open_project(str(tmp_path))
    known = {re.sub(r"\{\w+\}", "{}", route.path) for route in app.http(app.serving(), "dev_x").routes}
    asked = set()
    for path in (console.WEB / "src").rglob("*.ts*"):
        if ".test." not in path.name and path.name != "schema.ts":
            asked |= set(re.findall(r"[\"`](/api/[^\"`?]*)", path.read_text(encoding="utf-8")))
    assert len(asked) > 12
    assert {re.sub(r"\$?\{[^}]*\}", "{}", path) for path in asked} - known == set()


def test_its_types_are_what_the_server_says_today(tmp_path):
    if reason := console.missing():
        pytest.skip(reason)
    console.types(tmp_path / "schema.ts")
    now = (tmp_path / "schema.ts").read_text(encoding="utf-8")
    assert now == console.TYPES.read_text(encoding="utf-8"), "if that is meant: python -m tools.console --types"
