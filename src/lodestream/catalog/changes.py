"""Changes that people make to the catalog at run time: checked, allowed, written down, made."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType

from lodestream.catalog import store
from lodestream.catalog.catalog import Catalog
from lodestream.catalog.decide import EVERYTHING, is_object
from lodestream.catalog.entries import Policy, entry, policy
from lodestream.catalog.store import Entry
from lodestream.errors import AccessError, ConfigError
from lodestream.expressions.errors import ExpressionError
from lodestream.expressions.identity import compile_filter, compile_mask
from lodestream.lake.layout import QUARANTINE_SUFFIX
from lodestream.model.access import PRIVILEGES, Principal
from lodestream.model.policy import GROUP, Declassified, Grant, Mask, RowFilter, Tagged, TagPolicy, User, parse_column
from lodestream.model.table import LAYERS, TableName
from lodestream.model.types import Column, Schema
from lodestream.planning.policies import SOMEBODY
from lodestream.ports.authority import Event
from lodestream.project.policies import is_grantee, is_name_of_user
from lodestream.project.values import NAME

_COMMENT_MAX = 4_000


class Changes:
    """Changes in the name of one principal, who must have `manage` on what they touch.

    Args:
        catalog: of the lake.
        by: whoever makes them.
        door: where they came in.
        schemas: the stored columns of a table; None when there is no such table.
        tables: the tables there are, for the nearest name in messages.
    """

    def __init__(
        self, catalog: Catalog, by: Principal, door: str, schemas: Callable[[TableName], Schema | None],
        tables: Callable[[], Iterable[TableName]] = lambda: (),
    ) -> None:  # fmt: skip
        self.catalog, self.by, self.door = catalog, by, door
        self._schemas, self._tables = schemas, tables

    # Users, grants, policies, tags ----------------------------------------------------------------------------------

    def put(self, new: Policy) -> None:
        """Say something of users, grants, policies or tags, in the place of what was said at run time under its name.

        Raises:
            ConfigError: it names what is not there, cannot be applied, or is declared in a file.
            AccessError: they may not, which is written down.
        """
        kept = entry(new)
        self._allow(_ACTIONS[kept.kind], touched(new))
        self._check(new)
        self._write(kept, _ACTIONS[kept.kind], touched(new))

    def drop(self, kind: str, name: str) -> None:
        """Take back what was said at run time.

        Raises:
            ConfigError: nobody said so, or a file declares it.
            AccessError: they may not, which is written down.
        """
        named = [e for e in self.catalog.entries(kind) if e.name == name]
        about = (
            touched(policy(named[0])) if named else (EVERYTHING,)
        )  # whether there is one is for its managers to know
        self._take_back(kind, name, about)

    def revoke(self, grant: Grant) -> None:
        """Take back one grant that was given at run time; raises what `drop` raises."""
        self._take_back("grant", entry(grant).name, touched(grant))

    def untag(self, tagged: Tagged | Declassified) -> None:
        """Take back one tag, or one exception from one, that was given at run time; raises what `drop` raises."""
        kept = entry(tagged)
        self._take_back(kept.kind, kept.name, touched(tagged))

    def disable(self, name: str, *, disabled: bool = True) -> None:
        """Refuse a user everywhere within a second, whatever credential they bring, or let them in again.

        Raises:
            ConfigError: there is no such user, or a file disables them.
        """
        action, about = ("disable" if disabled else "enable"), (EVERYTHING,)
        self._allow(action, about)
        users = [e for e in self.catalog.entries("user") if e.name == name]
        if not users:
            raise self._none("user", name)
        if not disabled and any(e.origin and e.body["disabled"] for e in users):
            raise ConfigError("the file disables this user; change it there", user=name, file=users[-1].origin)
        own = next((e for e in users if not e.origin), None)
        if own is None or disabled:
            body = dict((own or users[-1]).body) | {"disabled": disabled}
            self._write(Entry("user", name, body), action, about)
        elif any(e.origin for e in users):  # it was there only to disable whom a file declares
            self._drop(own, action, about)
        else:
            self._write(Entry("user", name, dict(own.body) | {"disabled": False}), action, about)

    def remove_user(self, name: str) -> list[str]:
        """Forget a user and the grants to their name, which would be the next one's of that name.

        Returns:
            Grants to the name that stay, since a file declares them.

        Raises:
            ConfigError: there is no such user, or a file declares them.
        """
        self._allow("remove user", (EVERYTHING,))
        found = self._found("user", name)
        grants = [e for e in self.catalog.entries("grant") if e.body["to"] == name]
        with self.catalog.changing(self._event("remove user", (EVERYTHING,), found)) as (rows, _):
            for one in (found, *(e for e in grants if not e.origin)):
                store.drop(rows, one.kind, one.name)
        return [e.name for e in grants if e.origin]

    # Comments, owners, saved queries --------------------------------------------------------------------------------

    def comment(self, on: str, text: str) -> None:
        """Say what a layer, table or column is for; an empty text takes it back."""
        self._object(on)
        if len(text) > _COMMENT_MAX:
            raise ConfigError(f"a comment has at most {_COMMENT_MAX} characters", on=on)
        self._note("comment", on, {"text": text} if text else None)

    def own(self, on: str, owner: str) -> None:
        """Say who answers for a layer or table; it gives no privilege. An empty name takes it back."""
        self._object(on)
        if owner and not is_grantee(owner):
            raise ConfigError("neither a user nor a group; write name or group:name", owner=owner)
        self._note("owner", on, {"owner": owner} if owner else None)

    # Checks ---------------------------------------------------------------------------------------------------------

    def _check(self, new: Policy) -> None:
        if isinstance(new, User):
            self._check_user(new)
        elif isinstance(new, Grant):
            _grantees((new.to,))
            if new.privilege not in PRIVILEGES:
                near = _nearest(new.privilege, PRIVILEGES)
                raise ConfigError("no such privilege", privilege=new.privilege, nearest=near)
            if not is_object(new.on):
                near = _nearest(new.on, LAYERS)
                raise ConfigError("write a table as layer.name, a layer, or *", on=new.on, nearest=near)
            if "." in new.on:
                self._columns(TableName.parse(new.on))
        elif isinstance(new, RowFilter):
            _named(new.name, new.exempt)
            for table in new.on:
                _try_filter(new.where, self._columns(table))
        elif isinstance(new, Mask):
            _named(new.name, new.exempt)
            self._check_mask(new)
        elif isinstance(new, Tagged | Declassified):
            _named(new.tag, ())
            self._column(new.table, new.column)
        else:
            self._check_tag_policy(new)

    def _check_user(self, new: User) -> None:
        if not is_name_of_user(new.name):
            raise ConfigError("a user's name has letters, digits, blanks and . _ @ / + -", user=new.name)
        declared = next((e for e in self.catalog.entries("user") if e.name == new.name and e.origin), None)
        if declared is not None:
            raise ConfigError("this user is declared in a file; change it there", user=new.name, file=declared.origin)

    def _check_mask(self, new: Mask) -> None:
        others = [e for e in self.catalog.entries("mask") if e.name != new.name or e.origin]
        taken = {column: e.name for e in others for column in e.body["on"]}
        for table, column in new.on:
            schema = self._column(table, column)
            if (other := taken.get(f"{table}.{column}")) is not None:
                raise ConfigError("the column has a mask; drop that first", column=f"{table}.{column}", mask=other)
            _try_mask(new.shown, schema, schema[column])

    def _check_tag_policy(self, new: TagPolicy) -> None:
        _named(new.tag, new.exempt)
        for one in self.catalog.entries("tag"):
            found = policy(one)
            if isinstance(found, Tagged) and found.tag == new.tag and found.column is not None:
                schema = self._schemas(found.table) or Schema()
                if (column := schema.get(found.column)) is not None:
                    _try_mask(new.shown, schema, column)

    def _object(self, on: str) -> None:
        """Refuse what is no layer, table or column."""
        if on in (*LAYERS, EVERYTHING):
            return
        try:
            if on.count(".") == 1:
                self._columns(TableName.parse(on))
            else:
                self._column(*parse_column(on))
        except ValueError:
            near = _nearest(on, LAYERS)
            raise ConfigError("write a layer, layer.table or layer.table.column", on=on, nearest=near) from None

    def _columns(self, table: TableName) -> Schema:
        if table.name.endswith(QUARANTINE_SUFFIX):
            whose = str(table).removesuffix(QUARANTINE_SUFFIX)
            fix = "name the table: what holds for it holds for its quarantine"
            raise ConfigError("a policy on a quarantine", table=str(table), nearest=whose, fix=fix)
        schema = self._schemas(table)
        if schema is None:
            near = _nearest(str(table), [str(one) for one in self._tables()])
            raise ConfigError("no such table in the lake", table=str(table), nearest=near)
        return schema

    def _column(self, table: TableName, column: str | None) -> Schema:
        schema = self._columns(table)
        if column is not None and column not in schema:
            near = _nearest(column, schema.names)
            raise ConfigError("no such column", table=str(table), column=column, nearest=near)
        return schema

    # Writing --------------------------------------------------------------------------------------------------------

    def _allow(self, action: str, about: Sequence[str]) -> None:
        missing = next((one for one in about if not self.catalog.holds(self.by, "manage", one)), None)
        if missing is not None:
            self._refuse(action, about, "needs the privilege manage", missing)

    def _refuse(self, action: str, about: Sequence[str], why: str, on: str) -> None:
        version = self.catalog.version()
        detail = MappingProxyType({"reason": why})
        self.catalog.record(
            Event(self.by.name, self.by.via, self.door, action, "refused", tuple(about), (), version, detail)
        )
        raise AccessError(why, on=on)

    def _note(self, kind: str, on: str, body: Mapping[str, str] | None) -> None:
        table = on if on.count(".") < 2 else on.rpartition(".")[0]
        self._allow(kind, (table,))
        if body is not None:
            self._write(Entry(kind, on, body), kind, (on,))
        else:
            self._drop(self._found(kind, on), f"drop {kind}", (on,))

    def _write(self, kept: Entry, action: str, about: Sequence[str]) -> None:
        with self.catalog.changing(self._event(action, about, kept)) as (rows, at):
            store.put(rows, Entry(kept.kind, kept.name, kept.body, "", self.by.name, at))

    def _take_back(self, kind: str, name: str, about: Sequence[str]) -> None:
        action = "revoke" if kind == "grant" else f"drop {_ACTIONS[kind]}"
        self._allow(action, about)
        self._drop(self._found(kind, name), action, about)

    def _drop(self, found: Entry, action: str, about: Sequence[str]) -> None:
        with self.catalog.changing(self._event(action, about, found)) as (rows, _):
            if not store.drop(rows, found.kind, found.name):
                raise self._none(found.kind, found.name)

    def _event(self, action: str, about: Sequence[str], kept: Entry) -> Event:
        said = json.dumps(dict(kept.body), sort_keys=True, ensure_ascii=False)
        detail = MappingProxyType({"kind": kept.kind, "name": kept.name, "says": said})
        return Event(self.by.name, self.by.via, self.door, action, "allowed", tuple(about), detail=detail)

    def _found(self, kind: str, name: str) -> Entry:
        named = [e for e in self.catalog.entries(kind) if e.name == name]
        own = next((e for e in named if not e.origin), None)
        if own is not None:
            return own
        if named:
            raise ConfigError("a file declares this; change it there", name=name, file=named[0].origin)
        raise self._none(kind, name)

    def _none(self, kind: str, name: str) -> ConfigError:
        near = _nearest(name, [e.name for e in self.catalog.entries(kind)])
        return ConfigError(f"there is no such {kind.replace('_', ' ')}", name=name, nearest=near)


_ACTIONS = {
    "user": "user", "grant": "grant", "row_filter": "row filter", "mask": "mask", "tag": "tag",
    "tag_policy": "tag policy", "declassified": "declassify",
}  # fmt: skip


def touched(one: Policy) -> tuple[str, ...]:
    """What one must manage to say this: tables, a layer, or `*`."""
    if isinstance(one, Grant):
        return (one.on,)
    if isinstance(one, RowFilter):
        return tuple(str(table) for table in one.on)
    if isinstance(one, Mask):
        return tuple(dict.fromkeys(str(table) for table, _ in one.on))
    return (str(one.table),) if isinstance(one, Tagged) else (EVERYTHING,)


def _named(name: str, exempt: tuple[str, ...]) -> None:
    if not NAME.fullmatch(name):
        raise ConfigError("not a name; use lower-case letters, digits and _", name=name)
    _grantees(exempt)


def _grantees(names: tuple[str, ...]) -> None:
    for name in names:
        if not is_grantee(name):
            raise ConfigError(f"neither a user nor a group; write name or {GROUP}name", name=name)


def _try_filter(text: str, schema: Schema) -> None:
    try:
        compile_filter(text, schema, SOMEBODY)
    except ExpressionError as error:
        raise _wrong(text, error) from error


def _try_mask(text: str, schema: Schema, column: Column) -> None:
    try:
        compile_mask(text, schema, column, SOMEBODY)
    except ExpressionError as error:
        raise _wrong(text, error, column.name) from error


def _wrong(text: str, error: ExpressionError, column: str | None = None) -> ConfigError:
    return ConfigError(f"{error.code} {error.message}", expression=text, column=column, nearest=error.nearest)


def _nearest(name: str, known: Iterable[str]) -> str | None:
    found = difflib.get_close_matches(name, list(known), 1, 0.5)
    return found[0] if found else None
