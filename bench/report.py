"""Figures out of runs: medians, ratios, the table that people read and the line that programs read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

Run = Mapping[str, Any]


def figures(runs: Sequence[Run], events: int) -> dict[str, float]:
    """Medians over runs: events per second of wall time, nanoseconds of CPU per event, MiB of peak memory."""
    return {
        "events_per_s": round(events / median(run["wall_s"] for run in runs)),
        "cpu_ns_per_event": round(median(run["cpu_s"] for run in runs) * 1e9 / events),
        "peak_mib": round(median(run["peak_mib"] for run in runs)),
    }


def summary(events: int, lodestream: Sequence[Run], spark: Sequence[Run] | None) -> dict[str, Any]:
    """The benchmark's last line. Of Spark's runs the first is cold; figures and ratios are those of the warm ones."""
    ours = figures(lodestream, events)
    line: dict[str, Any] = {"events": events, "lodestream": ours, "spark": None, "ratio_wall": None, "ratio_cpu": None}
    if spark:
        theirs = figures(spark[1:] or spark, events)
        line["spark"] = {**theirs, "cold": figures(spark[:1], events)}
        line["ratio_wall"] = round(ours["events_per_s"] / theirs["events_per_s"], 2)
        line["ratio_cpu"] = round(theirs["cpu_ns_per_event"] / ours["cpu_ns_per_event"], 2)
    return line


def table(events: int, lodestream: Sequence[Run], spark: Sequence[Run] | None) -> str:
    """Every run and the medians, aligned."""
    rows = [("", "wall s", "events/s", "CPU s", "in kernel", "CPU ns/event", "peak MiB", "")]
    rows += [_row(f"lodestream {n + 1}", run, events) for n, run in enumerate(lodestream)]
    rows += [_row("spark cold" if n == 0 else f"spark warm {n}", run, events) for n, run in enumerate(spark or ())]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    text = ["  ".join([row[0].ljust(widths[0]), *(row[i].rjust(widths[i]) for i in range(1, 7)), row[7]]).rstrip()
            for row in rows]  # fmt: skip
    line = summary(events, lodestream, spark)
    if line["spark"]:
        text.append("")
        text.append(
            f"Medians: {line['ratio_wall']} times Spark's events per second (warm), "
            f"{line['ratio_cpu']} times its events per CPU second."
        )
    return "\n".join(text)


def _row(name: str, run: Run, events: int) -> tuple[str, ...]:
    start = run.get("start_up")
    notes = [f"+ {start['wall_s']:.1f} s wall, {start['cpu_s']:.1f} s CPU to start"] if start else []
    if run.get("native"):
        notes.append(f"native kernels {run['native']}")
    if run.get("layers"):
        notes.append(", ".join(f"{layer} {seconds:.1f} s" for layer, seconds in run["layers"].items()))
    return (
        name, f"{run['wall_s']:.2f}", f"{events / run['wall_s']:,.0f}",
        f"{run['cpu_s']:.2f}", f"{run['system_s']:.2f}", f"{run['cpu_s'] * 1e9 / events:,.0f}",
        f"{run['peak_mib']:,.0f}", "; ".join(notes),
    )  # fmt: skip
