"""The registry's HTTP API: what it answers, with which codes."""

import json
from urllib.parse import quote

import pytest

LONG, TEXT = '{"type":"long"}', '{"type":"string"}'


def record(*fields, name="A"):
    return json.dumps({"type": "record", "name": name, "fields": [dict(one) for one in fields]})


ID = {"name": "id", "type": "long"}
NOTE = {"name": "note", "type": "string"}
NOTED = {**NOTE, "default": ""}


def post(http, subject, schema, path="versions", **more):
    return http.post(f"/subjects/{quote(subject, safe='')}/{path}".rstrip("/"), json={"schema": schema, **more})


def code(answer):
    return answer.status_code, answer.json().get("error_code")


def test_versions_count_and_ids_are_of_the_text(http, subject):
    one = post(http, subject, record(ID)).json()
    assert post(http, subject, record(ID)).json() == one
    two = post(http, subject, record(ID, NOTED)).json()
    assert (one["version"], two["version"]) == (1, 2)
    assert post(http, f"{subject}-b", record(ID)).json()["id"] == one["id"]
    assert http.get(f"/subjects/{subject}/versions").json() == [1, 2]
    assert http.get(f"/subjects/{subject}/versions/latest").json()["id"] == two["id"]
    assert http.get(f"/subjects/{subject}/versions/-1").json()["version"] == 2
    assert http.get(f"/schemas/ids/{one['id']}").json()["schema"] == record(ID).replace(" ", "")
    assert http.get(f"/schemas/ids/{one['id']}/schema").text == record(ID).replace(" ", "")
    assert http.get(f"/subjects/{subject}/versions/1/schema").text == record(ID).replace(" ", "")
    assert http.get(f"/schemas/ids/{one['id']}/subjects").json() == [subject, f"{subject}-b"]
    assert http.get(f"/schemas/guids/{one['guid']}/ids").json() == [{"context": ".", "id": one["id"]}]
    assert post(http, subject, record(ID), path="").json()["version"] == 1


def test_layout_does_not_make_a_schema_another(http, subject):
    spaced = ' { "fields" : [ ],\n "name":"A" , "type":"record"}'
    assert post(http, subject, spaced).json()["id"] == post(http, subject, record()).json()["id"]
    named = '{"type":"record","name":"x.A","fields":[]}'
    split = '{"type":"record","name":"A","namespace":"x","fields":[]}'
    ids = [post(http, f"{subject}-n", one, path="versions?normalize=true").json()["id"] for one in (named, split)]
    assert ids[0] == ids[1]


@pytest.mark.parametrize("name", ["a/b", "a b", "ü-value", "a%2Fb", "q?x=1", "versions", ":.ctx:x"])
def test_any_name_can_be_a_subject(http, name):
    assert post(http, name, TEXT).status_code == 200
    assert name in http.get("/subjects").json()
    assert http.get(f"/subjects/{quote(name, safe='')}/versions/1").json()["subject"] == name


def test_what_is_not_there(http, subject):
    assert code(http.get(f"/subjects/{subject}/versions")) == (404, 40401)
    assert code(http.get(f"/subjects/{subject}/versions/1")) == (404, 40401)
    assert code(post(http, subject, TEXT, path="")) == (404, 40401)
    post(http, subject, TEXT)
    assert code(http.get(f"/subjects/{subject}/versions/9")) == (404, 40402)
    assert code(post(http, subject, LONG, path="")) == (404, 40403)
    assert code(http.get("/schemas/ids/999999")) == (404, 40403)
    assert code(http.get("/schemas/guids/00000000-0000-0000-0000-000000000000")) == (404, 40403)
    assert code(http.get(f"/config/{subject}")) == (404, 40408)
    assert code(http.get(f"/mode/{subject}")) == (404, 40409)
    assert code(http.get("/associations/resources/-/orders?resourceType=topic")) == (404, 404)
    assert code(http.patch("/subjects")) == (405, 405)


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ({"schema": "{"}, 42201), ({"schema": '{"type":"nosuch"}'}, 42201), ({"schema": ""}, 42201), ({}, 42201),
        ({"schema": 3}, 42201), ([], 422), ({"schema": TEXT, "schemaType": "XML"}, 422),
        ({"schema": TEXT, "references": 3}, 422), ({"schema": TEXT, "references": [{"name": "x"}]}, 42202),
        ({"schema": TEXT, "references": [{"name": "x", "subject": "nosuch", "version": 1}]}, 42201),
        ({"schema": "[" * 5000}, 42201), ({"schema": '{"items":' * 300 + '"int"' + "}" * 300}, 42201),
        ({"schema": TEXT, "id": 5}, 42205), ({"schema": TEXT, "metadata": 5}, 422),
        ({"schema": '{"type":"record","name":"A","fields":[{"name":"x","type":"int","default":"1"}]}'}, 42201),
    ],
)  # fmt: skip
def test_bad_schemas_are_refused(http, subject, body, wanted):
    assert code(http.post(f"/subjects/{subject}/versions", json=body)) == (422, wanted)


def test_bad_paths_and_bodies(http, subject):
    post(http, subject, TEXT)
    for version in ("0", "x", "99999999999999999999", "-2", "1.5", "%00"):
        assert code(http.get(f"/subjects/{subject}/versions/{version}")) == (422, 42202)
    assert code(http.get("/subjects/%00/versions")) == (422, 42208)
    assert http.get("/subjects/%ff/versions").status_code == 422
    assert http.post(f"/subjects/{subject}/versions", content=b"\xff{").status_code == 400
    assert http.post(f"/subjects/{subject}/versions", content=b'{"schema": "\\ud800"}').status_code == 400
    assert http.post(f"/subjects/{subject}/versions", content=b" " * (3 << 20)).status_code == 413
    assert code(http.put("/config", json={"compatibility": "SOMEHOW"})) == (422, 42203)
    assert code(http.put("/mode", json={"mode": "SOMEHOW"})) == (422, 42204)
    assert http.put(f"/config/{subject}", json={"compatibilityGroup": "x", "compatibility": "FULL"}).status_code == 422


OLD, OPTIONAL, NEEDED = record(ID), record(ID, NOTED), record(ID, NOTE)
CHAIN = (record({**NOTE, "default": "x"}), record(), record({"name": "note", "type": "int", "default": 1}))


@pytest.mark.parametrize(
    ("level", "registered", "schema", "taken"),
    [
        ("NONE", [OLD], TEXT, True),
        ("BACKWARD", [OLD], OPTIONAL, True), ("BACKWARD", [OLD], NEEDED, False), ("BACKWARD", [NEEDED], OLD, True),
        ("FORWARD", [OLD], NEEDED, True), ("FORWARD", [NEEDED], OLD, False), ("FORWARD", [OPTIONAL], OLD, True),
        ("FULL", [OLD], OPTIONAL, True), ("FULL", [OLD], NEEDED, False), ("FULL", [NEEDED], OLD, False),
        ("BACKWARD", CHAIN[:2], CHAIN[2], True), ("BACKWARD_TRANSITIVE", CHAIN[:2], CHAIN[2], False),
        ("FORWARD", CHAIN[:2], CHAIN[2], True), ("FORWARD_TRANSITIVE", CHAIN[:2], CHAIN[2], False),
        ("FULL", CHAIN[:2], CHAIN[2], True), ("FULL_TRANSITIVE", CHAIN[:2], CHAIN[2], False),
    ],
)  # fmt: skip
def test_each_level_takes_what_it_says(http, subject, level, registered, schema, taken):
    for one in registered:
        assert post(http, subject, one).status_code == 200
    assert http.put(f"/config/{subject}", json={"compatibility": level.lower()}).json() == {"compatibility": level}
    asked = http.post(f"/compatibility/subjects/{subject}/versions?verbose=true", json={"schema": schema}).json()
    assert asked["is_compatible"] is taken
    assert bool(asked["messages"]) is not taken
    answer = post(http, subject, schema)
    assert answer.status_code == (200 if taken else 409)
    assert taken or "oldSchemaVersion" in answer.json()["message"]


def test_one_version_can_be_compared_with(http, subject):
    path = f"/compatibility/subjects/{subject}/versions"
    assert code(http.post(f"{path}/latest", json={"schema": TEXT})) == (404, 40401)
    assert http.post(path, json={"schema": TEXT}).json() == {"is_compatible": True}
    post(http, subject, OLD)
    post(http, subject, OPTIONAL)
    assert http.post(f"{path}/1", json={"schema": NEEDED}).json() == {"is_compatible": False}
    assert http.post(f"{path}/2", json={"schema": NEEDED}).json() == {"is_compatible": True}
    assert code(http.post(f"{path}/3", json={"schema": TEXT})) == (404, 40402)


def test_the_language_of_a_subject_stays(http, subject):
    post(http, subject, TEXT)
    answer = post(http, subject, '{"type": "string"}', schemaType="JSON")
    assert code(answer) == (409, 409)
    assert "TYPE_CHANGED" in answer.json()["message"]


def test_settings_have_defaults_and_go_back_to_them(http, subject):
    assert http.get("/config").json() == {"compatibilityLevel": "BACKWARD"}
    assert http.get(f"/config/{subject}?defaultToGlobal=true").json() == {"compatibilityLevel": "BACKWARD"}
    http.put(f"/config/{subject}", json={"compatibility": "FULL", "normalize": True})
    assert http.get(f"/config/{subject}").json() == {"compatibilityLevel": "FULL", "normalize": True}
    assert http.delete(f"/config/{subject}").json() == {"compatibilityLevel": "FULL"}
    assert http.get(f"/mode/{subject}?defaultToGlobal=true").json() == {"mode": "READWRITE"}


def test_read_only_subjects_refuse_changes_and_answer(http, subject):
    first = post(http, subject, OLD).json()
    http.put(f"/mode/{subject}", json={"mode": "READONLY"})
    assert code(post(http, subject, OPTIONAL)) == (422, 42205)
    assert code(http.delete(f"/subjects/{subject}")) == (422, 42205)
    assert code(http.put(f"/config/{subject}", json={"compatibility": "NONE"})) == (422, 42205)
    assert post(http, subject, OLD).json() == first
    assert http.delete(f"/mode/{subject}").json() == {"mode": "READONLY"}
    assert post(http, subject, OPTIONAL).status_code == 200


def test_read_only_override_holds_for_all(http, subject):
    post(http, subject, OLD)
    http.put(f"/mode/{subject}", json={"mode": "READWRITE"})
    http.put("/mode", json={"mode": "READONLY_OVERRIDE"})
    try:
        assert code(post(http, subject, OPTIONAL)) == (422, 42205)
    finally:
        assert http.delete("/mode").json() == {"mode": "READONLY_OVERRIDE"}
    assert post(http, subject, OPTIONAL).status_code == 200


def test_an_import_keeps_ids_and_versions(http, subject):
    taken = post(http, f"{subject}-old", record(ID, name="Taken")).json()["id"]
    assert http.put(f"/mode/{subject}", json={"mode": "IMPORT"}).status_code == 200
    mine = record(ID, name="Imported")
    wanted = {"id": 70_001, "version": 40}
    assert post(http, subject, mine, **wanted).json().items() >= wanted.items()
    assert post(http, subject, mine, **wanted).json().items() >= wanted.items()
    assert code(post(http, subject, record(NOTE, name="Other"), id=taken, version=41)) == (422, 42205)
    assert code(post(http, subject, record(NOTE, name="Other"), id=70_002, version=40)) == (422, 42205)
    assert post(http, subject, TEXT, id=-1, version=-1).status_code == 200
    http.put(f"/mode/{subject}", json={"mode": "READWRITE"})
    assert post(http, f"{subject}-new", record(NOTE, name="After")).json()["id"] > 70_001
    assert code(http.put(f"/mode/{subject}", json={"mode": "IMPORT"})) == (422, 42205)
    assert http.put(f"/mode/{subject}?force=true", json={"mode": "IMPORT"}).status_code == 200


def test_deletion_is_soft_then_permanent(http, subject):
    first = post(http, subject, OLD).json()["id"]
    post(http, subject, OPTIONAL)
    assert code(http.delete(f"/subjects/{subject}?permanent=true")) == (404, 40405)
    assert code(http.delete(f"/subjects/{subject}/versions/1?permanent=true")) == (404, 40407)
    assert http.delete(f"/subjects/{subject}/versions/1").json() == 1
    assert code(http.delete(f"/subjects/{subject}/versions/1")) == (404, 40406)
    assert code(http.get(f"/subjects/{subject}/versions/1")) == (404, 40402)
    assert http.get(f"/subjects/{subject}/versions/1?deleted=true").json()["deleted"] is True
    assert http.get(f"/schemas/ids/{first}").status_code == 200
    assert http.delete(f"/subjects/{subject}").json() == [2]
    assert code(http.delete(f"/subjects/{subject}")) == (404, 40404)
    assert subject not in http.get("/subjects").json()
    assert subject in http.get("/subjects?deleted=true").json()
    assert subject in http.get("/subjects?deletedOnly=true").json()
    assert code(post(http, subject, OLD, path="")) == (404, 40401)
    assert post(http, subject, OLD, path="?deleted=true").json()["version"] == 1
    assert post(http, subject, OLD).json().items() >= {"id": first, "version": 3}.items()
    http.delete(f"/subjects/{subject}")
    assert http.delete(f"/subjects/{subject}?permanent=true").json() == [1, 2, 3]
    assert code(http.delete(f"/subjects/{subject}?permanent=true")) == (404, 40401)
    assert post(http, subject, OLD).json().items() >= {"id": first, "version": 1}.items()


def test_a_deleted_schema_is_no_longer_compared_with(http, subject):
    post(http, subject, NEEDED)
    http.delete(f"/subjects/{subject}/versions/1")
    assert post(http, subject, TEXT).status_code == 200


def test_what_others_build_on_stays(http, subject):
    post(http, f"{subject}-base", record(ID, name="Base"))
    reference = {"name": "Base", "subject": f"{subject}-base", "version": 1}
    user = record({"name": "base", "type": "Base"}, name="User")
    made = post(http, subject, user, references=[reference]).json()
    assert http.get(f"/schemas/ids/{made['id']}").json()["references"] == [reference]
    assert http.get(f"/subjects/{subject}-base/versions/1/referencedby").json() == [made["id"]]
    assert code(http.delete(f"/subjects/{subject}-base")) == (422, 42206)
    assert code(http.delete(f"/subjects/{subject}-base/versions/1")) == (422, 42206)
    assert code(post(http, f"{subject}-c", user)) == (422, 42201)
    http.delete(f"/subjects/{subject}")
    assert http.delete(f"/subjects/{subject}-base").json() == [1]
    assert code(http.delete(f"/subjects/{subject}-base?permanent=true")) == (422, 42206)
    http.delete(f"/subjects/{subject}?permanent=true")
    assert http.delete(f"/subjects/{subject}-base?permanent=true").json() == [1]


def test_lists_have_pages_and_prefixes(http, subject):
    for name in "abc":
        post(http, f"{subject}-{name}", TEXT)
    assert http.get(f"/subjects?subjectPrefix={subject}-&offset=1&limit=1").json() == [f"{subject}-b"]
    shown = http.get(f"/schemas?subjectPrefix={subject}-&latestOnly=true").json()
    assert [one["subject"] for one in shown] == [f"{subject}-{name}" for name in "abc"]
    assert http.get("/subjects?offset=x").status_code == 422
    assert http.head("/subjects").status_code == 200
