"""What a principal may do, and how they see a table: pure functions of the catalog's state."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lodestream.catalog.state import State
from lodestream.errors import AccessError
from lodestream.expressions.errors import ExpressionError
from lodestream.expressions.identity import compile_filter, compile_mask, nothing
from lodestream.lake.layout import QUARANTINE_SUFFIX
from lodestream.model.access import PRIVILEGES, Principal, Privilege, TableAccess
from lodestream.model.policy import GROUP, Mask, RowFilter, TagPolicy, is_one_of
from lodestream.model.table import LAYERS, TableName
from lodestream.model.types import Column, Schema

EVERYTHING = "*"
"""The whole catalog, in a grant."""

RAW = "_raw"
"""The column that keeps a record as it came."""

_SCOPE: dict[Privilege, str] = {"select": "query", "quarantine": "query", "replay": "admin", "manage": "admin"}


def privileges(state: State, principal: Principal, table: TableName) -> frozenset[Privilege]:
    """What a principal may do with a table; of a quarantine, `select` when they may read it."""
    if table.name.endswith(QUARANTINE_SUFFIX):
        about = TableName(table.layer, table.name.removesuffix(QUARANTINE_SUFFIX))
        held = privileges(state, principal, about)
        readable: frozenset[Privilege] = frozenset({"select"}) if "quarantine" in held else frozenset()
        return readable | (held & {"quarantine", "replay", "manage"})
    held = frozenset(p for p in PRIVILEGES if holds(state, principal, p, str(table)))
    if "quarantine" in held and bound(state, principal, table):
        held -= {"quarantine", "replay"}
    return held


def holds(state: State, principal: Principal, privilege: Privilege, on: str) -> bool:
    """Whether a principal has a privilege on a table, a layer or `*`, by grants and by their credential's scopes.

    A scope bounds what the grants give: `query:*` admits reading, `query:gold` and `query:gold.orders` less of it.
    """
    layer = on.partition(".")[0]
    wider = tuple(dict.fromkeys((on, layer, EVERYTHING)))
    if principal.scopes is not None and not any(principal.may(f"{_SCOPE[privilege]}:{one}") for one in wider):
        return False
    if principal.is_owner:
        return True
    if principal.name in state.disabled:
        return False
    granted = (state.grants.get(to, frozenset()) for to in (principal.name, *(GROUP + g for g in principal.groups)))
    return any((privilege, one) in some for some in granted for one in wider)


def visible(state: State, principal: Principal, tables: Iterable[TableName]) -> list[TableName]:
    """Those of the tables that a principal may know of."""
    return [table for table in tables if known(table, privileges(state, principal, table))]


def known(table: TableName, held: frozenset[Privilege]) -> bool:
    """Whether who has these privileges may know of a table: any will do; a quarantine they must be able to read."""
    return "select" in held or (bool(held) and not table.name.endswith(QUARANTINE_SUFFIX))


def bound(state: State, principal: Principal, table: TableName) -> bool:
    """Whether a row filter or mask binds them on a table, or on one whose rows went into it.

    What was set aside from a table holds whole records as they came, which no filter or mask is made for.
    """
    if principal.is_owner:
        return False
    return any(
        next(_binding(state, principal, one), None) is not None
        for one in (table, *sorted(state.above.get(table, frozenset())))
    )


def filtered(state: State, principal: Principal, table: TableName) -> bool:
    """Whether a row filter binds them on a table, or on one whose rows went into it, whatever they were granted."""
    if principal.is_owner:
        return False
    tables = (table, *state.above.get(table, frozenset()))
    return any(isinstance(policy, RowFilter) for one in tables for policy in _binding(state, principal, one))


def access(state: State, principal: Principal, table: TableName, schema: Schema) -> TableAccess:
    """How a principal sees a table whose version has these columns.

    Raises:
        AccessError: they may not read it, or a policy cannot be applied to these columns.
    """
    if "select" not in privileges(state, principal, table):
        raise AccessError("may not read this table", table=str(table))
    columns = tuple((column.name, None) for column in schema)
    if principal.is_owner or table.name.endswith(QUARANTINE_SUFFIX):
        return TableAccess(columns, version=state.version)
    filters = [one for one in state.filters.get(table, ()) if not is_one_of(principal, one.exempt)]
    conditions = tuple(_condition(one, principal, table, schema) for one in filters)
    _all_there(state, principal, table, schema)
    names = [_label(one) for one in filters]
    known = state.known.get(table) if _masked(state, principal, table) else None
    shown: list[tuple[str, str | None]] = []
    for column in schema:
        if known is not None and column.name not in known:
            continue  # of an older definition, and nobody knows what it was computed from
        masks = list(_masks(state, principal, table, column.name))
        names += [_label(one) for one in masks]
        if not masks and _tells(state, principal, table, column.name):
            shown.append((column.name, nothing(column)))
        else:
            shown.append((column.name, _shown(state, masks, principal, table, column, schema)))
    return TableAccess(tuple(shown), conditions, tuple(dict.fromkeys(names)), state.version)


def _masked(state: State, principal: Principal, table: TableName) -> bool:
    """Whether a mask binds a principal on a table, or on one whose rows went into it."""
    return any(
        not isinstance(policy, RowFilter)
        for one in (table, *state.above.get(table, frozenset()))
        for policy in _binding(state, principal, one)
    )


def _tells(state: State, principal: Principal, table: TableName, column: str) -> bool:
    """Whether an unmasked column tells what a mask hides: the record as it came, or a value computed from it."""
    if column == RAW:
        return _masked(state, principal, table)
    within = state.within.get(table, {}).get(column, frozenset())
    return any(next(_masks(state, principal, table, one), None) is not None for one in within)


def _binding(state: State, principal: Principal, table: TableName) -> Iterator[RowFilter | Mask | TagPolicy]:
    """Every policy that binds a principal on a table, whatever columns it has."""
    masks = (one for by_column in state.masks.get(table, {}).values() for one in by_column)
    by_tag = (one for tag in sorted(state.tagged(table)) for one in state.tag_policies.get(tag, ()))
    every: tuple[RowFilter | Mask | TagPolicy, ...] = (*state.filters.get(table, ()), *masks, *by_tag)
    for policy in every:
        if not is_one_of(principal, policy.exempt):
            yield policy


def _masks(state: State, principal: Principal, table: TableName, column: str) -> Iterator[Mask | TagPolicy]:
    """The masks of one column that bind a principal."""
    named = state.masks.get(table, {}).get(column, ())
    by_tag = (one for tag in sorted(state.tags_of(table, column)) for one in state.tag_policies.get(tag, ()))
    every: tuple[Mask | TagPolicy, ...] = (*named, *by_tag)
    for policy in every:
        if not is_one_of(principal, policy.exempt):
            yield policy


def _all_there(state: State, principal: Principal, table: TableName, schema: Schema) -> None:
    """Refuse a version in which a masked column is not found: it may stand there under another name."""
    tagged = (*state.tags.get(table, {}), *state.inherited.get(table, {}))
    named = {*state.masks.get(table, {}), *(name for name in tagged if name is not None)}
    for column in sorted(named - set(schema.names)):
        policy = next(_masks(state, principal, table, column), None)
        if policy is not None:
            raise AccessError(
                "a mask names a column that this version does not have", table=str(table), policy=_label(policy)
            )


def _condition(policy: RowFilter, principal: Principal, table: TableName, schema: Schema) -> str:
    try:
        return compile_filter(policy.where, schema, principal).duckdb
    except ExpressionError as error:
        raise _refused(policy, table, error) from error


def _shown(
    state: State, masks: list[Mask | TagPolicy], principal: Principal, table: TableName, column: Column, schema: Schema
) -> str | None:
    """What is shown in place of a column: nothing at all where masks do not agree.

    The mask of a tag that the column itself does not carry, but inherits or has from its table, need not fit it: then
    nothing is shown either.
    """
    texts = set()
    own = state.tags.get(table, {}).get(column.name, frozenset())
    for policy in masks:
        try:
            texts.add(compile_mask(policy.shown, schema, column, principal).duckdb)
        except ExpressionError as error:
            if not isinstance(policy, TagPolicy) or policy.tag in own:
                raise _refused(policy, table, error) from error
            texts.add(nothing(column))
    return nothing(column) if len(texts) > 1 else next(iter(texts), None)


def _refused(policy: RowFilter | Mask | TagPolicy, table: TableName, error: ExpressionError) -> AccessError:
    return AccessError(
        "a policy cannot be applied to this version of the table, so it is not shown",
        table=str(table), policy=_label(policy), code=error.code,
    )  # fmt: skip


def _label(policy: RowFilter | Mask | TagPolicy) -> str:
    if isinstance(policy, RowFilter):
        return f"row_filter:{policy.name}"
    return f"mask:{policy.name}" if isinstance(policy, Mask) else f"tag_policy:{policy.tag}"


def is_object(text: str) -> bool:
    """Whether a grant may stand on this: `*`, a layer, or a table."""
    if text == EVERYTHING or text in LAYERS:
        return True
    try:
        TableName.parse(text)
    except ValueError:
        return False
    return True
