import io

from rich.console import Console

from lodestream.demo.watch import Watch


def test_plain_lines_come_at_times_and_at_the_end() -> None:
    out, now = io.StringIO(), [0.0]
    with Watch(Console(file=out, width=40), ["bronze.a", "gold.b", "gold.c"], clock=lambda: now[0]) as watch:
        watch.committed("bronze.a", {"input": 1_000, "output": 990, "quarantine": 10})
        now[0] = 2.5
        watch.committed("bronze.a", {"input": 1_000, "output": 1_000})
        watch.committed("bronze.a", {})
        watch.committed("gold.b", {"output": 6})
        watch.committed("gold.b", {"output": 7})
    first, last = out.getvalue().splitlines()
    assert first == "  bronze 1,990 rows, 10 set aside · gold 0 rows, 0 set aside"
    assert last == "  bronze 1,990 rows, 10 set aside · gold 7 rows, 0 set aside"


def test_a_run_without_work_says_so() -> None:
    out = io.StringIO()
    with Watch(Console(file=out, width=40), ["bronze.a"]):
        pass
    assert out.getvalue() == "  nothing new\n"


def test_a_terminal_sees_rows_and_what_was_set_aside() -> None:
    out = io.StringIO()
    with Watch(Console(file=out, force_terminal=True, width=80), ["silver.a"]) as watch:
        watch.committed("silver.a", {"input": 4_000, "output": 3_000, "late": 600, "dropped": 400})
    assert "3,000" in out.getvalue()
    assert "1,000" in out.getvalue()
