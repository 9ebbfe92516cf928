"""What DuckDB gives under a decision is what plain Python gives of the rows, for random policies and readers."""

import random

import duckdb
import pyarrow as pa
import pytest

from lodestream.catalog import decide
from lodestream.catalog.entries import entry
from lodestream.catalog.state import arrange
from lodestream.errors import AccessError
from lodestream.model.access import Principal
from lodestream.model.policy import Grant, Mask, RowFilter, Tagged, TagPolicy, is_one_of
from lodestream.model.table import TableName
from tests.catalog import policies
from tests.catalog.policies import GROUPS, NAMES, NUMBERS, SCHEMA, TEXTS, WORDS

T = TableName("gold", "t")
ARROW = pa.schema(
    [("id", pa.int64()), ("country", pa.string()), ("email", pa.string()), ("amount", pa.int32()), ("flag", pa.bool_())]
)
CASES = 80


def reader(rng):
    groups = frozenset(g for g in GROUPS if rng.random() < 0.4)
    attributes = {name: rng.choice(WORDS) for name in ("country", "least") if rng.random() < 0.7}
    return Principal(rng.choice((*NAMES, "o'brien")), groups=groups, attributes=attributes)


def exempt(rng):
    return tuple(who for who in (*NAMES, *(f"group:{g}" for g in GROUPS)) if rng.random() < 0.15)


def under(access, rows):
    """The rows as DuckDB gives them under a decision."""
    with duckdb.connect() as connection:
        connection.register("t", pa.Table.from_pylist(rows, ARROW))
        listed = ", ".join(f'{masked or chr(34) + name + chr(34)} AS "{name}"' for name, masked in access.columns)
        where = "".join(f" AND ({one})" for one in access.filters)
        return connection.sql(f"SELECT {listed} FROM t WHERE true{where} ORDER BY t.id").to_arrow_table().to_pylist()


@pytest.mark.parametrize("seed", range(8))
def test_duckdb_gives_what_python_gives(seed):
    rng = random.Random(seed)
    hidden = changed = refused = 0
    for _ in range(CASES):
        who, rows = reader(rng), policies.rows(rng)
        filters = [(RowFilter(f"f{i}", (T,), said.text, exempt(rng)), said)
                   for i in range(rng.randrange(3)) for said in [policies.condition(rng)]]  # fmt: skip
        masks = []
        for column in (*TEXTS, *NUMBERS):
            if rng.random() < 0.4:
                said = policies.text_mask(rng) if column in TEXTS else policies.number_mask(rng)
                masks.append((column, Mask(f"m_{column}", ((T, column),), said.text, exempt(rng)), said))
        tagged = [column for column in TEXTS if rng.random() < 0.2]
        by_tag = TagPolicy("pii", "'tagged'", exempt(rng))
        granted = Grant(
            rng.choice((who.name, *(f"group:{g}" for g in GROUPS))), "select", rng.choice(("gold.t", "gold", "*"))
        )
        said_all = [
            granted,
            by_tag,
            *(f for f, _ in filters),
            *(m for _, m, _ in masks),
            *(Tagged("pii", T, c) for c in tagged),
        ]
        rng.shuffle(said_all)
        state = arrange(1, [entry(one) for one in said_all])
        if not is_one_of(who, (granted.to,)):
            refused += 1
            with pytest.raises(AccessError):
                decide.access(state, who, T, SCHEMA)
            continue
        wanted = [
            _masked(row, who, masks, tagged, by_tag)
            for row in rows
            if all(is_one_of(who, f.exempt) or policies.passes(said, row, who) for f, said in filters)
        ]
        found = under(decide.access(state, who, T, SCHEMA), rows)
        assert found == wanted, (who, [f for f, _ in filters], [m for _, m, _ in masks], tagged, by_tag)
        hidden += len(rows) - len(wanted)
        changed += sum(row not in rows for row in wanted)
    assert min(hidden, changed, refused) > 10  # or it has compared nothing


def _masked(row, who, masks, tagged, by_tag):
    made = dict(row)
    for column in row:
        bound = [said for name, mask, said in masks if name == column and not is_one_of(who, mask.exempt)]
        by_its_tag = column in tagged and not is_one_of(who, by_tag.exempt)
        if bound and by_its_tag:
            made[column] = None
        elif bound:
            made[column] = policies.shown(bound[0], row, who, column)
        elif by_its_tag:
            made[column] = "tagged"
    return made


def test_the_oracle_sees_a_planted_bug(monkeypatch):
    """A filter that lets rows through on which its condition errs would be seen."""
    import lodestream.catalog.decide as module
    from lodestream.expressions.identity import compile_filter

    def lenient(text, schema, who):
        made = compile_filter(text, schema, who)
        return type(made)(made.text, made.type, True, f"coalesce({made.duckdb}, true)", None, made.columns)

    monkeypatch.setattr(module, "compile_filter", lenient)
    with pytest.raises(AssertionError):
        test_duckdb_gives_what_python_gives(0)
