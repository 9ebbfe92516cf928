"""Which rows of the quarantine cannot be taken again, or not in another form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lodestream.engines.embedded.joins import is_right
from lodestream.errors import ConfigError
from lodestream.model.batch import Mend
from lodestream.model.steps import Aggregation, ApplyChanges, FlowPlan


def refuse_replay(plan: FlowPlan, positions: Iterable[tuple[str, int]], mends: Mapping[tuple[str, int], Mend]) -> None:
    """Raise ConfigError when rows cannot be taken again here, or cannot be mended.

    Windows and changes are made again from rows as they came, so rows that they are made from cannot be mended.
    """
    if any(is_right(plan.join, source) for source, _ in positions):
        assert plan.join is not None
        raise ConfigError(
            "a row of the joined stream cannot be taken again here; mend it where it came from",
            table=str(plan.table.name), source=str(plan.join.join.table),
        )  # fmt: skip
    if mends and (plan.step(Aggregation) is not None or plan.step(ApplyChanges) is not None):
        made = "windows are made" if plan.step(Aggregation) is not None else "changes are taken"
        raise ConfigError(f"mend the row in the table that {made} from", table=str(plan.table.name))
