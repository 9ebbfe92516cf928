"""The native kernels, when the wheel `lodestream-native` is installed: each has a portable form that gives the same."""

from __future__ import annotations

import importlib
from typing import Any

FORM = 2
"""What the kernels take and give; a wheel of another form is left alone."""


def find() -> tuple[Any | None, str]:
    """The kernels' module, or None when there is none that fits; and which it is or why there is none."""
    try:
        module = importlib.import_module("lodestream_native")
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == "lodestream_native"
        return None, "not installed" if missing else f"does not load: {error}"
    if getattr(module, "FORM", None) != FORM:
        return None, "installed in another version than this one needs; install it again"
    return module, str(module.VERSION)


KERNELS, STATE = find()
