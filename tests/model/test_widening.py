"""Types that hold two others, and never change a value."""

from __future__ import annotations

import pytest

from lodestream.model.types import PRIMITIVES, parse_type
from lodestream.model.widening import unify, widens, wider

UNIFIED = [
    ("int", "bigint", "bigint"), ("bigint", "double", "double"), ("bigint", "decimal(10,2)", "decimal(21,2)"),
    ("decimal(38,0)", "decimal(38,38)", "double"), ("timestamp", "string", "string"), ("boolean", "bigint", "None"),
    ("array<int>", "array<double>", "array<double>"), ("struct<a:int>", "struct<b:string>", "struct<a:int,b:string>"),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other", "both"), UNIFIED)
def test_the_narrowest_type_that_holds_both(one, other, both):
    assert str(unify(parse_type(one), parse_type(other))) == both
    assert str(unify(parse_type(other), parse_type(one))) == (
        both if "struct" not in both else "struct<b:string,a:int>"
    )


def test_nothing_widens_to_a_type_that_changes_it():
    kinds = [*PRIMITIVES, "decimal(10,2)"]
    for one in kinds:
        for other in kinds:
            if widens(parse_type(one), parse_type(other)) and one != other:
                assert not widens(parse_type(other), parse_type(one))
                assert str(unify(parse_type(one), parse_type(other))) in (other, "double")


WIDER = [
    ("int", "bigint", "bigint"), ("tinyint", "int", "int"), ("int", "double", "double"), ("float", "double", "double"),
    ("bigint", "double", "None"), ("bigint", "decimal(38,0)", "decimal(38,0)"), ("bigint", "int", "None"),
    ("decimal(10,2)", "double", "None"), ("decimal(10,2)", "bigint", "decimal(21,2)"), ("string", "bigint", "None"),
    ("bigint", "string", "None"), ("double", "bigint", "None"), ("boolean", "bigint", "None"),
]  # fmt: skip


@pytest.mark.parametrize(("declared", "seen", "becomes"), WIDER)
def test_a_column_widens_only_when_no_value_changes(declared, seen, becomes):
    assert str(wider(parse_type(declared), parse_type(seen))) == becomes
