"""Tells what kind of statement a text is, and reads those that concern the session alone."""

from __future__ import annotations

from collections.abc import Sequence

from lodestream.apis.postgres.failures import PgError
from lodestream.apis.postgres.lexer import Token, tokens
from lodestream.apis.postgres.statements import (
    Close,
    Copy,
    Deallocate,
    Declare,
    Discard,
    Execute,
    Fetch,
    Ignored,
    Prepare,
    Question,
    Reset,
    SetVariable,
    Show,
    Statement,
    Transaction,
)

_QUESTIONS = frozenset({"select", "with", "values", "table", "from", "describe", "summarize", "("})
_CHANGES = frozenset(
    [
        "insert",
        "update",
        "delete",
        "merge",
        "create",
        "alter",
        "drop",
        "truncate",
        "grant",
        "revoke",
        "comment",
        "vacuum",
        "analyze",
        "reindex",
        "refresh",
        "cluster",
        "call",
        "do",
        "lock",
        "import",
        "attach",
        "detach",
        "install",
        "load",
        "pragma",
        "security",
        "reassign",
    ]
)
_IGNORED = {"listen": "LISTEN", "unlisten": "UNLISTEN", "checkpoint": "CHECKPOINT"}


def classify(text: str) -> Statement:
    """Read one statement as far as needed to know who answers it.

    Raises:
        PgError: it would change something, or cannot be read.
    """
    words = tokens(text)
    first = words[0].text if words and words[0].kind in ("word", "mark") else ""
    if first in _QUESTIONS:
        return Question(text)
    if first in _CHANGES or (first == "copy" and _copies_in(words)):
        raise read_only(first)
    if first in _IGNORED:
        return Ignored(text, _IGNORED[first])
    reader = _READERS.get(first)
    if reader is None:
        near = words[0] if words else None
        told = f'syntax error at or near "{text[near.start : near.end]}"' if near else "syntax error at end of input"
        raise PgError("42601", told, position=near.start + 1 if near else 0)
    return reader(text, _Words(text, words))


def read_only(what: str) -> PgError:
    """The error for a statement that would change something."""
    return PgError(
        "25006", f"cannot execute {what.upper()} in a read-only transaction",
        hint="Tables are changed by their declarations; ask with SELECT.",
    )  # fmt: skip


def _copies_in(words: Sequence[Token]) -> bool:
    depth = 0
    for word in words:
        depth += {"(": 1, ")": -1}.get(word.text, 0) if word.kind == "mark" else 0
        if depth == 0 and word.kind == "word" and word.text in ("from", "to"):
            return word.text == "from"
    return False


class _Words:
    """Reads tokens from left to right."""

    def __init__(self, text: str, words: Sequence[Token]) -> None:
        self.text, self.words, self.at = text, words, 1

    def peek(self) -> Token | None:
        return self.words[self.at] if self.at < len(self.words) else None

    def accept(self, *texts: str) -> str | None:
        """The next word when it is one of these."""
        word = self.peek()
        if word is not None and word.kind in ("word", "mark") and word.text in texts:
            self.at += 1
            return word.text
        return None

    def expect(self, *texts: str) -> str:
        found = self.accept(*texts)
        if found is None:
            raise self.wrong()
        return found

    def name(self) -> str:
        word = self.peek()
        if word is None or word.kind not in ("word", "quoted"):
            raise self.wrong()
        self.at += 1
        return word.text

    def rest(self) -> str:
        """The text that is left."""
        word = self.peek()
        if word is None:
            raise self.wrong()
        self.at = len(self.words)
        return self.text[word.start :]

    def end(self) -> None:
        if self.peek() is not None:
            raise self.wrong()

    def wrong(self) -> PgError:
        word = self.peek()
        if word is None:
            return PgError("42601", "syntax error at end of input", position=len(self.text) + 1)
        near = self.text[word.start : word.end]
        return PgError("42601", f'syntax error at or near "{near}"', position=word.start + 1)


def _begin(text: str, words: _Words) -> Statement:
    return Transaction(text, "begin")  # isolation levels and READ ONLY: each question reads one snapshot anyway


def _commit(text: str, words: _Words) -> Statement:
    if words.accept("prepared"):
        raise PgError("0A000", "two-phase commit is not there")
    return Transaction(text, "commit")


def _rollback(text: str, words: _Words) -> Statement:
    words.accept("work", "transaction")
    if words.accept("to"):
        words.accept("savepoint")
        return Transaction(text, "rollback to", words.name())
    return Transaction(text, "rollback")


def _savepoint(text: str, words: _Words) -> Statement:
    return Transaction(text, "savepoint", words.name())


def _release(text: str, words: _Words) -> Statement:
    words.accept("savepoint")
    return Transaction(text, "release", words.name())


def _set(text: str, words: _Words) -> Statement:
    local = words.accept("session", "local") == "local"
    if words.accept("time"):
        words.expect("zone")
        return SetVariable(text, "timezone", _value(words), local)
    if words.accept("transaction", "characteristics", "constraints", "role", "authorization"):
        return Ignored(text, "SET")
    name = words.name()
    if name == "names":
        return SetVariable(text, "client_encoding", _value(words), local)
    while words.accept("."):
        name += "." + words.name()
    words.expect("=", "to")
    return SetVariable(text, name, _value(words), local)


def _value(words: _Words) -> str | None:
    parts = []
    sign = ""
    while (word := words.peek()) is not None:
        words.at += 1
        if word.kind == "mark" and word.text in "+-":
            sign = word.text
        elif word.kind != "mark":
            parts.append(sign + word.text)
            sign = ""
        elif word.text != ",":
            words.at -= 1
            raise words.wrong()
    if not parts:
        raise words.wrong()
    return None if parts == ["default"] or parts == ["local"] else ", ".join(parts)


def _reset(text: str, words: _Words) -> Statement:
    return Reset(text, _variable(words))


def _show(text: str, words: _Words) -> Statement:
    return Show(text, _variable(words))


def _variable(words: _Words) -> str:
    if words.accept("time"):
        words.expect("zone")
        return "timezone"
    if words.accept("transaction"):
        words.expect("isolation")
        words.expect("level")
        return "transaction_isolation"
    if words.accept("session"):
        words.expect("authorization")
        return "session_authorization"
    name = words.name()
    while words.accept("."):
        name += "." + words.name()
    words.end()
    return name


def _declare(text: str, words: _Words) -> Statement:
    name = words.name()
    binary = hold = False
    while (word := words.accept("binary", "asensitive", "insensitive", "no", "scroll")) is not None:
        binary |= word == "binary"
    words.expect("cursor")
    if (word := words.accept("with", "without")) is not None:
        words.expect("hold")
        hold = word == "with"
    words.expect("for")
    return Declare(text, name, words.rest(), hold, binary)


def _fetch(text: str, words: _Words) -> Statement:
    move = words.words[0].text == "move"
    count: int | None = 1
    if words.accept("prior", "backward", "first", "last", "absolute", "relative"):
        raise PgError("55000", "cursor can only scan forward", hint="Fetch with NEXT, a count, or ALL.")
    if words.accept("all"):
        count = None
    elif not words.accept("next"):
        words.accept("forward")
        word = words.peek()
        if words.accept("all"):
            count = None
        elif word is not None and word.kind == "number":
            words.at += 1
            count = int(word.text)
        elif word is not None and word.text == "-":
            raise PgError("55000", "cursor can only scan forward")
    words.accept("from", "in")
    return Fetch(text, words.name(), count, move)


def _close(text: str, words: _Words) -> Statement:
    return Close(text, words.name())


def _discard(text: str, words: _Words) -> Statement:
    return Discard(text, words.expect("all", "plans", "sequences", "temp", "temporary"))


def _deallocate(text: str, words: _Words) -> Statement:
    words.accept("prepare")
    return Deallocate(text, words.name())


def _prepare(text: str, words: _Words) -> Statement:
    if words.accept("transaction"):
        raise PgError("0A000", "two-phase commit is not there")
    name, types = words.name(), []
    if words.accept("("):
        start = words.peek()
        depth = 1
        while depth and (word := words.peek()) is not None:
            words.at += 1
            depth += {"(": 1, ")": -1}.get(word.text, 0) if word.kind == "mark" else 0
            if start is not None and ((depth == 1 and word.text == ",") or depth == 0):
                types.append(text[start.start : word.start].strip().lower())
                start = words.peek()
    words.expect("as")
    return Prepare(text, name, tuple(types), words.rest())


def _execute(text: str, words: _Words) -> Statement:
    name, values = words.name(), []
    if words.accept("("):
        while not words.accept(")"):
            word = words.peek()
            if word is None:
                raise words.wrong()
            sign = "-" if words.accept("-") else ""
            word = words.peek() if sign else word
            if word is None or word.kind not in ("string", "number", "word"):
                raise PgError("0A000", "EXECUTE takes plain values here")
            words.at += 1
            values.append(Token(word.kind, sign + word.text, word.start, word.end))
            words.accept(",")
    return Execute(text, name, tuple(values))


def _explain(text: str, words: _Words) -> Statement:
    raise PgError("0A000", "EXPLAIN is not answered here", hint="`lodestream explain TABLE` shows what made a table.")


def _copy(text: str, words: _Words) -> Statement:
    query = _copied(text, words)
    words.expect("to")
    if not words.accept("stdout"):
        raise PgError("42501", "COPY writes to STDOUT alone")
    words.accept("with")
    options: dict[str, str] = {}
    if words.accept("("):
        while not words.accept(")"):
            option = words.name()
            word = words.peek()
            if word is not None and word.text not in (",", ")"):
                words.at += 1
                options[option] = word.text
            else:
                options[option] = "true"
            words.accept(",")
    else:
        while (word := words.peek()) is not None:
            option = words.expect("csv", "binary", "delimiter", "null", "header", "quote", "escape")
            if option in ("csv", "binary"):
                options["format"] = option
            elif option == "header":
                options["header"] = "true"
            else:
                words.accept("as")
                word = words.peek()
                if word is None or word.kind != "string":
                    raise words.wrong()
                words.at += 1
                options[option] = word.text
    words.end()
    return Copy(text, query, options.pop("format", "text").lower(), options)


def _copied(text: str, words: _Words) -> str:
    """The query of a COPY, or a SELECT of the table's columns it names."""
    first = words.peek()
    if first is None:
        raise words.wrong()
    if first.text == "(" and first.kind == "mark":
        return _parenthesis(text, words)
    start = first.start
    words.name()
    while words.accept("."):
        words.name()
    table = text[start : words.words[words.at - 1].end]
    word = words.peek()
    columns = "*"
    if word is not None and word.text == "(" and word.kind == "mark":
        columns = _parenthesis(text, words)
    return f"SELECT {columns} FROM {table}"


def _parenthesis(text: str, words: _Words) -> str:
    words.expect("(")
    start, depth = words.words[words.at - 1].end, 1
    while (word := words.peek()) is not None:
        words.at += 1
        depth += {"(": 1, ")": -1}.get(word.text, 0) if word.kind == "mark" else 0
        if depth == 0:
            return text[start : word.start]
    raise words.wrong()


_READERS = {
    "begin": _begin, "start": _begin, "commit": _commit, "end": _commit, "rollback": _rollback, "abort": _rollback,
    "savepoint": _savepoint, "release": _release, "set": _set, "reset": _reset, "show": _show, "declare": _declare,
    "fetch": _fetch, "move": _fetch, "close": _close, "discard": _discard, "deallocate": _deallocate,
    "prepare": _prepare, "execute": _execute, "explain": _explain, "copy": _copy,
}  # fmt: skip
