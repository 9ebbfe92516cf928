"""What a lake is when it is not one to be written: a copy that is not whole yet, a replica, or one that was left."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from lodestream.errors import ConfigError, CorruptionError
from lodestream.lake.disk import Disk, replace_durable
from lodestream.lake.layout import standing_file

Kind = Literal["restoring", "replica", "fenced"]
_REFUSED = {
    "restoring": ("lake is not restored to the end", "run the same lodestream restore again"),
    "replica": ("lake is a replica; what is written to it would be lost", "lodestream replicate --activate"),
    "fenced": (
        "lake was left for its replica, which is the one that is written now",
        "lodestream replicate from there to here, then --activate here",
    ),
}


@dataclass(frozen=True, slots=True)
class Standing:
    """Why a lake is not written.

    Attributes:
        kind: `restoring`, `replica` of another lake, or `fenced` because its replica took over.
        facts: whose copy it is, or who took over.
    """

    kind: Kind
    facts: Mapping[str, Any] = field(default_factory=dict)

    def told(self) -> tuple[str, str]:
        """The same in words, and what helps."""
        return _REFUSED[self.kind]


def standing(disk: Disk, lake: str) -> Standing | None:
    """Why a lake is not written; None for one that is. Raises CorruptionError when its file cannot be read."""
    path = standing_file(lake)
    try:
        return Standing(**json.loads(disk.read(path)))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise CorruptionError("file that says what this lake is cannot be read", path=path) from error


def put_standing(disk: Disk, lake: str, now: Standing) -> None:
    """Say durably that a lake is not to be written."""
    replace_durable(disk, standing_file(lake), json.dumps(asdict(now), sort_keys=True).encode())


def refuse_written(disk: Disk, lake: str) -> None:
    """Raise ConfigError when a lake is not to be written."""
    found = standing(disk, lake)
    if found is not None:
        message, fix = found.told()
        raise ConfigError(message, lake=lake, fix=fix, **found.facts)
