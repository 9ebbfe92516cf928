"""Writes docs/reference/cli.md from the command line itself: `python -m tools.cli_reference`."""

from __future__ import annotations

import enum
import inspect
from pathlib import Path
from typing import Any

import typer

from lodestream.cli.call import COMMON, EXIT_CODES
from lodestream.cli.root import VERBS, app

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "cli.md"
_SHARED = {*COMMON, "help"}


def page() -> str:
    """The reference page as it should be."""
    root: Any = typer.main.get_command(app)
    parts = [
        "# The command line",
        "Written by `python -m tools.cli_reference`; a test holds it to the program.",
        "Data goes to stdout, talk to stderr. `--json` makes stdout one JSON object, or one a line; an error is then\n"
        '`{"error": {"kind": …, "exit_code": …, "message": …, "facts": {…}}}`. Away from a terminal, or with\n'
        "`NO_COLOR` set, there are no colours and nothing moves. Nothing is ever sent anywhere.",
        _shared(root),
        _codes(),
    ]
    for heading, verbs in VERBS.items():
        parts.append(f"## {heading}")
        for name in verbs:
            command = root.commands[name]
            inner = getattr(command, "commands", None)
            if inner is None:
                parts.append(_verb(name, command))
            else:
                if command.invoke_without_command:
                    parts.append(_verb(name, command))
                parts += [_verb(f"{name} {word}", one) for word, one in inner.items()]
    return "\n\n".join(parts) + "\n"


def _shared(root: Any) -> str:
    options = [p for p in root.commands["status"].params if p.name in COMMON]
    return "## Options of every verb\n\n" + _table(options) + "\n\nThey may stand before the verb as well."


def _codes() -> str:
    rows = [f"| {code} | {text} |" for code, text in EXIT_CODES.items()]
    return "\n".join(["## Exit codes", "", "| code | says |", "|---|---|", *rows])


def _verb(name: str, command: Any) -> str:
    own = [p for p in command.params if p.name not in _SHARED]
    usage = " ".join(
        [f"lodestream {name}"]
        + [_argument(p) for p in own if p.param_type_name == "argument"]
        + (["[OPTIONS]"] if any(p.param_type_name == "option" for p in own) else [])
    )
    text = inspect.cleandoc(command.help or "")
    parts = [f"### `{usage}`", text]
    return "\n\n".join([*parts, _table(own)] if own else parts)


def _argument(parameter: Any) -> str:
    name = (parameter.metavar or parameter.name).upper()
    name = f"{name}…" if parameter.nargs == -1 else name
    return name if parameter.required else f"[{name}]"


def _table(parameters: list[Any]) -> str:
    rows = ["| option | says |", "|---|---|"]
    for parameter in parameters:
        if getattr(parameter, "hidden", False):
            continue
        if parameter.param_type_name == "argument":
            name = f"`{_argument(parameter)}`"
        else:
            name = ", ".join(f"`{text}`" for text in sorted(parameter.opts, key=len, reverse=True))
            if not parameter.is_flag:
                name += f" {_value(parameter)}"
        default = getattr(parameter.default, "value", parameter.default)
        said = (
            ""
            if default in (None, False, [], ()) or "default:" in (parameter.help or "")
            else f" Default: `{default}`."
        )
        rows.append(f"| {name} | {(parameter.help or '').replace('|', chr(92) + '|')}{said} |")
    return "\n".join(rows)


def _value(parameter: Any) -> str:
    kind = parameter.type_descriptor.annotation
    if inspect.isclass(kind) and issubclass(kind, enum.Enum):
        return " \\| ".join(f"`{choice.value}`" for choice in kind)
    return f"*{parameter.metavar or ('NUMBER' if kind is int else 'TEXT')}*".replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
