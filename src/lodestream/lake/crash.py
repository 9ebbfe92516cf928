"""Named points at which the chaos tests kill the process; nothing happens at them otherwise."""

from __future__ import annotations

from collections.abc import Callable


def _ignore(name: str) -> None: ...


_hook: Callable[[str], None] = _ignore


def point(name: str) -> None:
    """Tell the installed hook that the process has come to `name`, such as `commit.linked`."""
    _hook(name)


def install(hook: Callable[[str], None] | None) -> None:
    """Call `hook(name)` at every point from now on; None takes the hook away."""
    global _hook
    _hook = hook or _ignore
