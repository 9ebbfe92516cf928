"""Data types by their Spark SQL names, and the schemas built from them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

INTEGERS = ("tinyint", "smallint", "int", "bigint")
FRACTIONS = ("float", "double")
PRIMITIVES = ("boolean", *INTEGERS, *FRACTIONS, "string", "binary", "date", "timestamp")
_ALIASES = {
    "integer": "int", "long": "bigint", "short": "smallint", "byte": "tinyint", "real": "float",
    "bool": "boolean", "varchar": "string", "text": "string", "numeric": "decimal", "dec": "decimal",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class DataType:
    """One Spark SQL type; `str()` gives its canonical Spark DDL text.

    Attributes:
        name: one of `PRIMITIVES`, or `decimal`, `array`, `map`, `struct`.
        precision: digits of a decimal (1 to 38).
        scale: digits after the point of a decimal.
        element: type of an array's items or a map's values.
        key: type of a map's keys.
        fields: a struct's fields.
    """

    name: str
    precision: int = 0
    scale: int = 0
    element: DataType | None = None
    key: DataType | None = None
    fields: tuple[Column, ...] = ()

    def __str__(self) -> str:
        if self.name == "decimal":
            return f"decimal({self.precision},{self.scale})"
        if self.name == "array":
            return f"array<{self.element}>"
        if self.name == "map":
            return f"map<{self.key},{self.element}>"
        if self.name == "struct":
            return "struct<" + ",".join(f"{f.name}:{f.type}" for f in self.fields) + ">"
        return self.name

    @property
    def is_integer(self) -> bool:
        """Whether this is tinyint, smallint, int or bigint."""
        return self.name in INTEGERS

    @property
    def is_numeric(self) -> bool:
        """Whether this is an integer, float, double or decimal."""
        return self.name in (*INTEGERS, *FRACTIONS, "decimal")


@dataclass(frozen=True, slots=True)
class Column:
    """A named, typed column.

    `comment` is shown to readers, `renamed_from` tells what stored rows call it; neither makes it another column.
    """

    name: str
    type: DataType
    nullable: bool = True
    comment: str = ""
    renamed_from: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Schema:
    """An ordered list of columns with distinct names."""

    columns: tuple[Column, ...] = ()
    _index: dict[str, int] = field(init=False, repr=False, compare=False, hash=False, default_factory=dict)
    _hash: int = field(init=False, repr=False, compare=False, hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash(self.columns))  # it is a key of what is asked for again and again
        for i, column in enumerate(self.columns):
            if self._index.setdefault(column.name, i) != i:
                raise ValueError(f"column appears twice: {column.name}")

    def __hash__(self) -> int:
        return self._hash

    @property
    def names(self) -> tuple[str, ...]:
        """The column names, in order."""
        return tuple(column.name for column in self.columns)

    def __contains__(self, name: object) -> bool:
        return name in self._index

    def __getitem__(self, name: str) -> Column:
        return self.columns[self._index[name]]

    def __iter__(self) -> Iterator[Column]:
        return iter(self.columns)

    def __len__(self) -> int:
        return len(self.columns)

    def get(self, name: str) -> Column | None:
        """The column of that name, or None."""
        index = self._index.get(name)
        return None if index is None else self.columns[index]

    def with_columns(self, *columns: Column) -> Schema:
        """A copy in which each given column replaces its namesake or comes last."""
        merged = {column.name: column for column in self.columns}
        merged.update({column.name: column for column in columns})
        return Schema(tuple(merged.values()))

    def without(self, *names: str) -> Schema:
        """A copy without the named columns."""
        return Schema(tuple(column for column in self.columns if column.name not in names))


def parse_type(text: str) -> DataType:
    """Read a Spark DDL type, such as `decimal(12,2)` or `array<struct<a:int>>`.

    Raises:
        ValueError: the text is not a type this platform stores.
    """
    parsed, rest = _parse(text.strip())
    if rest:
        raise ValueError(f"not a type: {text!r}")
    return parsed


def _parse(text: str) -> tuple[DataType, str]:
    match = re.match(r"\s*([A-Za-z_]+)\s*", text)
    if not match:
        raise ValueError(f"not a type: {text!r}")
    name = _ALIASES.get(match[1].lower(), match[1].lower())
    rest = text[match.end() :]
    if name == "decimal":
        return _decimal(rest)
    if name in PRIMITIVES:
        return DataType(name), rest
    if name not in ("array", "map", "struct") or not rest.startswith("<"):
        raise ValueError(f"not a type: {text!r}")
    rest = rest[1:]
    if name == "array":
        element, rest = _parse(rest)
        return DataType("array", element=element), _close(rest, text)
    if name == "map":
        key, rest = _parse(rest)
        if not rest.lstrip().startswith(","):
            raise ValueError(f"not a type: {text!r}")
        value, rest = _parse(rest.lstrip()[1:])
        return DataType("map", key=key, element=value), _close(rest, text)
    fields: list[Column] = []
    while True:
        head = re.match(r"\s*`?([^`:,<>\s]+)`?\s*:", rest)
        if not head:
            raise ValueError(f"not a type: {text!r}")
        kind, rest = _parse(rest[head.end() :])
        fields.append(Column(head[1], kind))
        rest = rest.lstrip()
        if rest.startswith(","):
            rest = rest[1:]
            continue
        return DataType("struct", fields=tuple(fields)), _close(rest, text)


def _decimal(rest: str) -> tuple[DataType, str]:
    match = re.match(r"\(\s*(\d+)\s*(?:,\s*(\d+)\s*)?\)\s*", rest)
    precision, scale = (int(match[1]), int(match[2] or 0)) if match else (10, 0)
    if not 1 <= precision <= 38 or scale > precision:
        raise ValueError(f"not a decimal: precision={precision} scale={scale}, use 1 to 38 digits")
    return DataType("decimal", precision=precision, scale=scale), rest[match.end() :] if match else rest


def _close(rest: str, text: str) -> str:
    rest = rest.lstrip()
    if not rest.startswith(">"):
        raise ValueError(f"not a type: {text!r}")
    return rest[1:].lstrip()


BOOLEAN, STRING, BINARY = DataType("boolean"), DataType("string"), DataType("binary")
INT, BIGINT, DOUBLE = DataType("int"), DataType("bigint"), DataType("double")
DATE, TIMESTAMP = DataType("date"), DataType("timestamp")
