"""How many machines of an Azure cluster are spot machines, at each of its sizes.

Azure Databricks takes no share: `first_on_demand` is the number of machines, the driver first, that are not spot
machines, whatever the size of the cluster. So a share can be had at one size only; we take the largest.
"""

from __future__ import annotations

from dataclasses import dataclass

_STEPS = 5


@dataclass(frozen=True, slots=True)
class SpotShare:
    """What a cluster of some size is made of.

    Attributes:
        workers: the cluster's workers.
        machines: workers and driver.
        spot: spot machines among them, when Azure has them; it falls back to others.
    """

    workers: int
    machines: int
    spot: int

    @property
    def share(self) -> float:
        """Spot machines among all, from 0 to 1."""
        return self.spot / self.machines


def first_on_demand(workers_max: int, spot_ratio: float) -> int | None:
    """Machines that are not spot ones, so that the largest cluster comes nearest to the share; None for all.

    The driver is always one of them: a cluster that loses it loses its run.
    """
    machines = workers_max + 1
    spot = int(spot_ratio * machines + 0.5)
    return max(1, machines - spot) if spot else None


def spot_shares(workers_min: int, workers_max: int, spot_ratio: float) -> list[SpotShare]:
    """The real shares at the smallest and the largest size, some between, and where the first spot machine comes."""
    on_demand = first_on_demand(workers_max, spot_ratio)
    sizes = {workers_min + (workers_max - workers_min) * i // _STEPS for i in range(_STEPS + 1)}
    if on_demand is not None and workers_min < on_demand <= workers_max:
        sizes.add(on_demand)  # with the driver one machine more than are on demand
    kept = workers_max + 1 if on_demand is None else on_demand
    return [SpotShare(workers, workers + 1, max(0, workers + 1 - kept)) for workers in sorted(sizes)]
