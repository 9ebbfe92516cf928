from bench import report

LODESTREAM = [{"wall_s": wall, "cpu_s": 1.0, "system_s": 0.2, "peak_mib": 500.4} for wall in (1.0, 9.0, 2.0)]
SPARK = [
    {"wall_s": 40.0, "cpu_s": 80.0, "system_s": 3.0, "peak_mib": 3000.0, "start_up": {"wall_s": 8.0, "cpu_s": 11.0}},
    {
        "wall_s": 20.0,
        "cpu_s": 30.0,
        "system_s": 3.0,
        "peak_mib": 2000.0,
        "layers": {"bronze": 9.0, "silver": 9.0, "gold": 2.0},
    },
]


def test_summary_has_medians_and_ratios_of_warm_runs():
    assert report.summary(1_000_000, LODESTREAM, SPARK) == {
        "events": 1_000_000,
        "lodestream": {"events_per_s": 500_000, "cpu_ns_per_event": 1_000, "peak_mib": 500},
        "spark": {
            "events_per_s": 50_000,
            "cpu_ns_per_event": 30_000,
            "peak_mib": 2_000,
            "cold": {"events_per_s": 25_000, "cpu_ns_per_event": 80_000, "peak_mib": 3_000},
        },
        "ratio_wall": 10.0,
        "ratio_cpu": 30.0,
    }


def test_summary_without_spark_says_null():
    line = report.summary(1_000_000, LODESTREAM, None)
    assert line["spark"] is line["ratio_wall"] is line["ratio_cpu"] is None


def test_table_shows_every_run():
    text = report.table(1_000_000, LODESTREAM, SPARK)
    assert [line.split("  ")[0] for line in text.splitlines()[1:6]] == [
        "lodestream 1", "lodestream 2", "lodestream 3", "spark cold", "spark warm 1",
    ]  # fmt: skip
    assert "10.0 times" in text
    assert "bronze 9.0 s" in text
