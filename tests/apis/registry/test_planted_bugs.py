"""The laws of a registry, and that each of them sees the bug that would break it."""

import json

import pytest

from lodestream.apis.registry import records, settings
from lodestream.apis.registry.database import open_database
from lodestream.apis.registry.problems import Problem
from lodestream.apis.registry.subjects import Subjects
from lodestream.apis.registry.submissions import Submission


def schema(*names, default=True):
    more = {"default": 0} if default else {}
    fields = [{"name": name, "type": "int", **more} for name in names]
    return Submission("AVRO", json.dumps({"type": "record", "name": "A", "fields": fields}))


def laws(store):
    """Ids, versions, compatibility and deletion of one registry."""
    database = open_database(store)
    try:
        subjects = Subjects(database)

        def put(subject, one):
            return subjects.register(subject, one, normalize=False)

        made = [put("s", schema(*"abc"[:n])) for n in range(4)]
        assert [one.version for one in made] == [1, 2, 3, 4]
        assert len({one.stored.id for one in made}) == 4
        again = [put("t", schema(*"abc"[:n])) for n in range(4)]
        assert [one.stored.id for one in again] == [one.stored.id for one in made]
        assert put("s", schema("a")) == made[1]
        with pytest.raises(Problem, match="code=409"):
            put("s", schema("x", default=False))
        subjects.delete_version("s", 4, permanent=False)
        assert put("s", schema(*"abc")).version == 5
        subjects.delete_subject("s", permanent=False)
        assert put("s", schema("x", default=False)).version > 4
        assert put("u", schema("y", default=False)).stored.id not in {one.stored.id for one in made}
        with pytest.raises(Problem, match="code=40401"):
            subjects.lookup("nosuch", schema(), normalize=False, deleted=False)
    finally:
        database.close()


def test_the_laws_hold(store):
    laws(store)


def every_level_is_none(patch):
    patch.setattr(settings, "effective", lambda _rows, _subject, name: "NONE" if name == "level" else "READWRITE")


def texts_do_not_count(patch):
    patch.setattr(Submission, "fingerprint", property(lambda self: self.kind * 16))


def deleted_versions_count(patch):
    live = records.versions
    patch.setattr(records, "versions", lambda rows, subject, *, deleted=False: live(rows, subject, deleted=True))


def versions_begin_again(patch):
    add = records.add_version

    def again(rows, subject, schema_id, _number):
        there = len(records.versions(rows, subject))
        return add(rows, subject, schema_id, there + 1)

    patch.setattr(records, "add_version", again)


def each_subject_has_its_own_ids(patch):
    patch.setattr(records, "by_fingerprint", lambda *_: None)


@pytest.mark.parametrize(
    "bug",
    [
        every_level_is_none,
        texts_do_not_count,
        deleted_versions_count,
        versions_begin_again,
        each_subject_has_its_own_ids,
    ],
    ids=lambda bug: bug.__name__,
)
def test_a_planted_bug_is_seen(bug, tmp_path, monkeypatch):
    bug(monkeypatch)
    with pytest.raises(BaseException, match=r".*"):
        laws(str(tmp_path / "r.db"))
