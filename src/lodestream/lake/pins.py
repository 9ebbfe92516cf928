"""Pins: what somebody who copies a lake still needs, so that upkeep leaves it until they are done or have died."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from lodestream.lake.disk import Disk, replace_durable
from lodestream.lake.layout import pins_folder


@dataclass(frozen=True, slots=True)
class Pin:
    """What one copy needs; it counts until a time that whoever copies puts off again and again.

    Attributes:
        id: of the copy.
        until_us: microseconds since 1970 UTC; past it the pin says nothing.
        versions: by table, `layer.name`: the version whose files and log are read.
        hot: by table: its files of open windows at that version, as in the log.
        states: by flow: names of state links.
    """

    id: str
    until_us: int
    versions: Mapping[str, int] = field(default_factory=dict)
    hot: Mapping[str, Sequence[str]] = field(default_factory=dict)
    states: Mapping[str, Sequence[str]] = field(default_factory=dict)


def put_pin(disk: Disk, lake: str, pin: Pin) -> None:
    """Write a pin durably, over what was there of it."""
    path = os.path.join(pins_folder(lake), f"{pin.id}.json")
    replace_durable(disk, path, json.dumps(asdict(pin), sort_keys=True).encode())


def drop_pin(disk: Disk, lake: str, pin: Pin) -> None:
    """Take a pin away; one that is not there is no error."""
    with contextlib.suppress(FileNotFoundError):
        disk.unlink(os.path.join(pins_folder(lake), f"{pin.id}.json"))


def pins(disk: Disk, lake: str, now_us: int) -> list[Pin]:
    """The pins that count now; those that do not any more are taken away."""
    found = []
    for name in sorted(disk.list(pins_folder(lake))):
        if not name.endswith(".json"):
            continue
        with contextlib.suppress(FileNotFoundError, ValueError, TypeError):
            pin = Pin(**json.loads(disk.read(os.path.join(pins_folder(lake), name))))
            if pin.until_us > now_us:
                found.append(pin)
            else:
                drop_pin(disk, lake, pin)
    return found
