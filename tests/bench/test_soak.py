"""The soak runs a pipeline, sees what grows and what is missing, and draws it."""

import json
from xml.etree import ElementTree as ET

import pytest

from bench import soak

COUNTS = {
    "bronze.orders": {"input": 10, "output": 9, "quarantine": 1},
    "silver.orders": {"input": 9, "output": 7, "duplicate": 2},
    "gold.per_country": {"input": 7, "late": 1, "output": 3},
}


def test_a_few_seconds(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    plot = tmp_path / "images" / "soak.svg"
    soak.main(["--minutes", "0.08", "--rate", "500", "--every-seconds", "0.25", "--plot", str(plot)])
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert not [
        line for line in told["wrong"] if "was given" in line
    ]  # no row is missing; how fast it was is not judged
    series = told["series"]
    assert set(series) == {name for names in soak._PANELS.values() for name in names}
    assert series["memory own"]["mean"] > 20
    assert series["open files"]["mean"] > 3
    names = {element.text for element in ET.parse(plot).iter() if element.tag.endswith("text")}
    assert set(soak._PANELS) <= names


def test_a_straight_line_is_found():
    points = [(minute / 10, 5.0 + 3 * minute / 10) for minute in range(101)]
    found = soak.trend(points)
    assert (found["per_minute"], found["start"], found["growth"]) == pytest.approx((3, 5, 15))
    assert found["error"] == pytest.approx(0, abs=1e-6)
    assert found["samples"] == 51


@pytest.mark.parametrize(
    ("name", "growth", "error", "mean", "is_flat"),
    [
        ("memory own", 40.0, 1.0, 500.0, True),
        ("memory own", 60.0, 1.0, 500.0, False),
        ("memory own", 60.0, 10.0, 500.0, True),
        ("memory own", -600.0, 1.0, 500.0, True),
        ("memory own", 15.0, 0.1, 20.0, True),
        ("memory own", 19.0, 0.1, 20.0, False),
        ("open files", 5.0, 0.1, 20.0, False),
    ],
)
def test_what_grows(name, growth, error, mean, is_flat):
    assert soak.flat(name, {"growth": growth, "error": error, "mean": mean, "samples": 100}) is is_flat
    assert not soak.flat(name, {"growth": 0.0, "error": 0.0, "mean": mean, "samples": 2})


def test_rows_that_are_missing_are_told():
    assert soak.missing(COUNTS, 10) == []
    assert soak.missing(COUNTS, 11)
    for table, fate in (("bronze.orders", "quarantine"), ("silver.orders", "duplicate"), ("gold.per_country", "input")):
        less = {name: dict(counts) for name, counts in COUNTS.items()}
        less[table][fate] -= 1
        assert soak.missing(less, 10), table
