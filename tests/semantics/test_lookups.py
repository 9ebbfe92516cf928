from lodestream.model.table import Lookup, TableName
from lodestream.semantics.lookups import look_up

LOOKUP = Lookup(TableName("silver", "users"), (("user_id", "id"),), (("tier", "user_tier"),))
USERS = [{"id": 1, "tier": "gold"}, {"id": 2, "tier": "tin"}, {"id": 2, "tier": "tin"}, {"id": None, "tier": "none"}]


def test_a_known_key_brings_its_columns():
    assert look_up({"user_id": 1, "x": 0}, LOOKUP, USERS) == {"user_id": 1, "x": 0, "user_tier": "gold"}


def test_an_unknown_key_brings_nulls():
    assert look_up({"user_id": 9}, LOOKUP, USERS) == {"user_id": 9, "user_tier": None}
    assert look_up({"user_id": 9}, LOOKUP, []) == {"user_id": 9, "user_tier": None}


def test_null_matches_nothing():
    assert look_up({"user_id": None}, LOOKUP, USERS) == {"user_id": None, "user_tier": None}


def test_a_key_that_is_there_twice_gives_no_answer_even_when_both_agree():
    assert look_up({"user_id": 2}, LOOKUP, USERS) is None


def test_all_parts_of_the_key_must_be_equal():
    both = Lookup(LOOKUP.table, (("a", "x"), ("b", "y")), (("z", "z"),))
    table = [{"x": 1, "y": 1, "z": "one"}, {"x": 1, "y": 2, "z": "two"}]
    assert look_up({"a": 1, "b": 2}, both, table) == {"a": 1, "b": 2, "z": "two"}
