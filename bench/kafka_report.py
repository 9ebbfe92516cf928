"""The Kafka benchmark's figures as text for people and as the line that programs read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LAYERS = ("bronze", "silver", "gold")


def line(name: str, told: Mapping[str, Any], cores: int, load: float) -> str:
    """One measurement: its figures, what it ran on, and its command."""
    parts = [f"{name}:"]
    for key, value in told.items():
        if key == "latency_ms":
            parts += [f"{layer} {value[layer]}" for layer in LAYERS if layer in value]
        elif key not in ("command", "wrong") or (key == "wrong" and value):
            parts.append(
                f"{key} {value:,}"
                if isinstance(value, int | float) and not isinstance(value, bool)
                else f"{key} {value}"
            )
    text = "  ".join(parts) + f"  ({cores} cores, load {load:.1f})"
    return text + (f"\n    {told['command']}" if "command" in told else "")


def summary(found: Mapping[str, Any]) -> dict[str, Any]:
    """The benchmark's last line; null for what was not measured.

    Args:
        found: figures by measurement: `drain_bronze`, `drain_all`, `catch_up`, `latency`, `peers`, and `cores`,
            `broker_cpu_s`.
    """

    def of(name: str, key: str) -> Any:
        return found.get(name, {}).get(key)

    return {
        "bronze_events_per_s": of("drain_bronze", "events_per_s"),
        "gold_events_per_s": of("drain_all", "events_per_s"),
        "cpu_ns_per_event": {
            "bronze": of("drain_bronze", "cpu_ns_per_event"),
            "gold": of("drain_all", "cpu_ns_per_event"),
        },
        "latency_ms": of("latency", "latency_ms"),
        "latency_rate": of("latency", "rate"),
        "held_events_per_s": found.get("held_per_s"),
        "catch_up_s": of("catch_up", "catch_up_s"),
        "broker_cpu_s": found["broker_cpu_s"],
        "cores": found["cores"],
        "native": of("drain_all", "native"),
        "same_topic": {key: of("same_topic", key) for key in ("events_per_s", "cpu_ns_per_event", "peak_mib")},
        "peers": {name: _short(told) for name, told in found.get("peers", {}).items()},
    }  # fmt: skip


def _short(told: Mapping[str, Any]) -> dict[str, Any]:
    if "error" in told:
        return {"events_per_s": None, "error": told["error"]}
    return {key: told[key] for key in ("events_per_s", "cpu_ns_per_event", "peak_mib", "missing")} | {
        "equal": not told["wrong"]
    }
