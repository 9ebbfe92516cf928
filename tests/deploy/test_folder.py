"""A bundle is written once, again and anew, and never over what somebody else wrote."""

import json

import pytest

from lodestream.deploy.folder import MANIFEST, read_bundle, write_bundle
from lodestream.errors import ConfigError

FILES = {"databricks.yml": b"a: 1\n", "resources/x.yml": b"b: 2\n"}


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }


def test_first_second_and_changed(tmp_path):
    folder = tmp_path / "deep" / "bundle"
    assert write_bundle(folder, FILES).new == tuple(FILES)
    manifest = (folder / MANIFEST).read_bytes()
    again = write_bundle(folder, FILES)
    assert (again.same, again.new, again.changed, again.removed) == (tuple(FILES), (), (), ())
    assert (folder / MANIFEST).read_bytes() == manifest
    other = {"databricks.yml": b"a: 2\n", "resources/y.yml": b"c: 3\n"}
    told = write_bundle(folder, other)
    assert (told.new, told.changed, told.removed) == (("resources/y.yml",), ("databricks.yml",), ("resources/x.yml",))
    assert contents(folder) == other


@pytest.mark.parametrize("path", FILES)
def test_an_edited_file_is_not_overwritten(tmp_path, path):
    write_bundle(tmp_path, FILES)
    (tmp_path / path).write_bytes(b"mine\n")
    before = contents(tmp_path)
    with pytest.raises(ConfigError, match=path):
        write_bundle(tmp_path, dict.fromkeys(FILES, b"new\n"))
    assert contents(tmp_path) == before, "nothing was written"
    assert read_bundle(tmp_path)[1] == [path]
    write_bundle(tmp_path, FILES, force=True)
    assert contents(tmp_path) == FILES
    assert read_bundle(tmp_path)[1] == []


def test_an_edited_file_that_is_no_longer_ours_is_not_removed(tmp_path):
    write_bundle(tmp_path, FILES)
    (tmp_path / "resources/x.yml").write_bytes(b"mine\n")
    rest = {"databricks.yml": FILES["databricks.yml"]}
    with pytest.raises(ConfigError, match=r"resources/x\.yml"):
        write_bundle(tmp_path, rest)
    assert contents(tmp_path)["resources/x.yml"] == b"mine\n"


def test_files_of_others_stand_in_the_way_only_where_we_write(tmp_path):
    (tmp_path / "databricks.yml").write_bytes(b"theirs\n")
    (tmp_path / "notes.md").write_bytes(b"theirs\n")
    with pytest.raises(ConfigError, match="--force"):
        write_bundle(tmp_path, FILES)
    assert contents(tmp_path) == {"databricks.yml": b"theirs\n", "notes.md": b"theirs\n"}
    write_bundle(tmp_path, FILES, force=True)
    assert contents(tmp_path) == FILES | {"notes.md": b"theirs\n"}


def test_the_same_content_is_in_nobodys_way(tmp_path):
    (tmp_path / "databricks.yml").write_bytes(FILES["databricks.yml"])
    assert write_bundle(tmp_path, FILES).same == ("databricks.yml",)


def test_a_list_that_names_files_elsewhere_removes_nothing(tmp_path):
    (tmp_path / "victim").write_bytes(b"x")
    folder = tmp_path / "bundle"
    write_bundle(folder, FILES)
    told = json.loads((folder / MANIFEST).read_text())
    digest = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
    told["files"] |= {"../victim": digest, str(tmp_path / "victim"): digest}
    (folder / MANIFEST).write_text(json.dumps(told))
    write_bundle(folder, FILES)
    assert (tmp_path / "victim").read_bytes() == b"x"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"files": 3}'])
def test_a_damaged_list(tmp_path, text):
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(ConfigError, match="remove it"):
        write_bundle(tmp_path, FILES)


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "bundle").write_text("x")
    with pytest.raises(ConfigError, match="cannot write"):
        write_bundle(tmp_path / "bundle", FILES)
    with pytest.raises(ConfigError, match="no such folder"):
        read_bundle(tmp_path / "bundle")
