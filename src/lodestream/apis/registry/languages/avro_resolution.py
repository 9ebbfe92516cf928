"""Whether one Avro schema reads what another wrote: the schema resolution rules of the Avro specification 1.12."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lodestream.apis.registry.languages.parsed import Difference, Steps

if TYPE_CHECKING:
    from lodestream.apis.registry.languages.avro import Field, Type

_PROMOTIONS = {
    ("int", "long"), ("int", "float"), ("int", "double"), ("long", "float"), ("long", "double"), ("float", "double"),
    ("string", "bytes"), ("bytes", "string"),
}  # fmt: skip


def differences(reader: Type, writer: Type) -> list[Difference]:
    """Every place where a value of `writer` would not resolve to `reader`; empty when all do."""
    return _Comparison().compare(reader, writer, "")


class _Comparison:
    """One comparison; a pair of types is looked at once, which ends recursion."""

    def __init__(self) -> None:
        self._steps = Steps()
        self._known: dict[tuple[int, int], list[Difference]] = {}

    def compare(self, reader: Type, writer: Type, path: str) -> list[Difference]:
        self._steps.take(1 + (len(reader.fields) + len(reader.symbols)) // 16)
        key = (id(reader), id(writer))
        if (known := self._known.get(key)) is not None:
            return known
        before = len(self._known)
        self._known[key] = []  # a pair inside itself resolves if the rest does
        found = self._pair(reader, writer, path)
        if found:  # what was thought to resolve because this pair does is open again
            for inner in [k for k in list(self._known)[before:] if not self._known[k]]:
                del self._known[inner]
        self._known[key] = found
        return found

    def _pair(self, reader: Type, writer: Type, path: str) -> list[Difference]:
        if writer.kind == "union":
            return self._from_union(reader, writer, path)
        if reader.kind == "union":
            if any(not self.compare(branch, writer, path) for branch in reader.inner):
                return []
            return [Difference("MISSING_UNION_BRANCH", f"no branch at {path or '/'} takes {_said(writer)}")]
        if reader.kind != writer.kind:
            if (writer.kind, reader.kind) in _PROMOTIONS:
                return []
            return [Difference("TYPE_MISMATCH", f"{_said(writer)} is not read as {_said(reader)} at {path or '/'}")]
        if reader.kind in ("array", "map"):
            word = "items" if reader.kind == "array" else "values"
            return self.compare(reader.inner[0], writer.inner[0], f"{path}/{word}")
        if not reader.name:
            return []
        found = [] if _same_name(reader, writer) else [_renamed(reader, writer, path)]
        if reader.kind == "record":
            for i, one in enumerate(reader.fields):
                found += self._field(one, writer, f"{path}/fields/{i}")
        elif reader.kind == "enum":
            there = set(reader.symbols)
            missing = [one for one in writer.symbols if one not in there]
            if missing and not reader.has_default:
                where = f"{', '.join(missing)} at {path}/symbols"
                found.append(Difference("MISSING_ENUM_SYMBOLS", f"reader's enum has no default and lacks {where}"))
        elif reader.size != writer.size:
            sizes = f"{writer.size} is not {reader.size}"
            found.append(Difference("FIXED_SIZE_MISMATCH", f"size {sizes} at {path}/size"))
        return found

    def _from_union(self, reader: Type, writer: Type, path: str) -> list[Difference]:
        found: list[Difference] = []
        for i, branch in enumerate(writer.inner):
            if (inner := self.compare(reader, branch, path)) and reader.kind == "union":
                found.append(
                    Difference("MISSING_UNION_BRANCH", f"no branch takes {_said(branch)}, branch {i} at {path or '/'}")
                )
            else:
                found += inner
        return found

    def _field(self, one: Field, writer: Type, path: str) -> list[Difference]:
        names = (one.name, *one.aliases)
        written = next((writer.named[name] for name in names if name in writer.named), None)
        if written is not None:
            return self.compare(one.type, written.type, f"{path}/type")
        if one.has_default:
            return []
        text = f"field {one.name!r} at {path} has no default and is not in the writer's record"
        return [Difference("READER_FIELD_MISSING_DEFAULT_VALUE", text)]


def _same_name(reader: Type, writer: Type) -> bool:
    """By the name without namespace, or by an alias of the reader."""
    return _short(reader.name) == _short(writer.name) or writer.name in reader.aliases


def _short(name: str) -> str:
    return name.rpartition(".")[2]


def _renamed(reader: Type, writer: Type, path: str) -> Difference:
    return Difference("NAME_MISMATCH", f"{writer.name} is not {reader.name}, nor an alias of it, at {path}/name")


def _said(kind: Type) -> str:
    return f"{kind.kind} {kind.name}".strip()
