"""The plan of a batch that somebody asks for: it takes in nothing new, and follows what the flow has done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lodestream.engines.embedded.state import FlowState
from lodestream.model.batch import BatchKind, BatchPlan


def submitted(
    kind: BatchKind, state: FlowState, clock_us: int, *, epoch: int, definition: str, pins: Mapping[str, int],
    **what: Any,
) -> BatchPlan:  # fmt: skip
    """The next plan after `state`; `what` are the fields that say what is asked for."""
    asked_us = what["erasing"].time_us if "erasing" in what else 0
    return BatchPlan(
        epoch=epoch, batch=state.batch + 1, kind=kind, clock_us=max(clock_us, state.clock_us, asked_us),
        definition=definition, after=state.upto, upto=state.upto, joined_after=state.joined_upto,
        joined_upto=state.joined_upto, pins=pins, late_us=state.late_us, evict_us=state.late_us, answers=state.answers,
        **what,
    )  # fmt: skip
