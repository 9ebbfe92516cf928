"""`lodestream init`: a small project that runs."""

from __future__ import annotations

import enum
import re
from pathlib import Path
from typing import Annotated

import typer

from lodestream.cli.call import Call

_TEMPLATES = Path(__file__).parent / "templates"


class Template(enum.StrEnum):
    """What to begin with."""

    BASIC = "basic"
    ORDERS = "orders"


def init(
    call: Call,
    folder: Annotated[str | None, typer.Argument(help="Where; made when it is not there.")] = None,
    template: Annotated[
        Template, typer.Option("--template", help="orders makes its own events; basic reads files that you bring.")
    ] = Template.ORDERS,
) -> None:
    """Write a small project that runs: tables in three layers, a source, a unit test.

    Files that are there already are never touched: then nothing is written and the command ends with 3.
    """
    from lodestream.errors import ConfigError

    target = Path(call.project) / (folder or ".")
    source = _TEMPLATES / template.value
    files = sorted(path.relative_to(source) for path in source.rglob("*") if path.is_file())
    standing = [str(path) for path in files if (target / path).exists()]
    if standing:
        raise ConfigError("files are in the way; choose another folder", folder=str(target), files=", ".join(standing))
    name = re.sub(r"[^a-z0-9_]+", "_", target.resolve().name.lower()).strip("_") or "lake"
    try:
        for path in files:
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            text = (source / path).read_text(encoding="utf-8")
            (target / path).write_text(text.replace("project: {name}", f"project: {name}"), encoding="utf-8")
    except OSError as error:
        raise ConfigError("cannot write here", folder=str(target), reason=str(error)) from error
    if call.json:
        call.emit({"folder": str(target), "template": template.value, "files": [str(path) for path in files]})
        return
    for path in files:
        call.print(str(target / path))
    here = target.resolve() == Path.cwd()
    call.say(f"next: {'' if here else f'cd {target} && '}lodestream test && lodestream run --until-idle")
