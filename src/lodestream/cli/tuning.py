"""Settings of a Python process that answers many small requests."""

import gc
import sys

_SWITCH_S = 0.0005
_GARBAGE = (10_000, 20, 20)


def tune_for_requests() -> None:
    """Let threads take turns often, so that no answer waits for one that computes, and look for garbage seldom."""
    sys.setswitchinterval(_SWITCH_S)
    gc.set_threshold(*_GARBAGE)
