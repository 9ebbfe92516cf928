"""What is refused at plan time, under which code, with which way round, and where the message points."""

from __future__ import annotations

import pytest

from lodestream.expressions.errors import ExpressionError
from lodestream.expressions.scalar import compile_scalar
from tests.expressions.spark_rows import WILD_SCHEMA as SCHEMA


@pytest.mark.parametrize(
    ("text", "code", "near"),
    [
        ("foo(a)", "P101", None),
        ("lenght(s)", "P101", "length"),
        ("uper(s)", "P101", "upper"),
        ("upper(s) over ()", "P101", None),
        ("get_json_object(s, '$.a')", "P101", "a struct column in the table's schema"),
        ("initcap(s)", "P101", "upper(left(…, 1))"),
        ("array_distinct(r)", "P101", "sort in the reader"),
        ("xxhash64(s)", "P101", "md5(…) or sha2(…, 256)"),
        ("approx_count_distinct(a)", "P102", "count(distinct …) in a query"),
        ("percentile_approx(a, 0.5)", "P102", "max(…) or avg(…)"),
        ("w / 3", "P103", "cast(… as double) / …"),
        ("w * w", "P103", None),
        ("-w", "P103", None),
        ("from_utc_timestamp(t, 'CET')", "P105", "the timestamp itself"),
        ("cast(s as timestamp_ntz)", "P105", "timestamp"),
        ("t > '2024-01-01 00:00:00+02:00'", "P105", None),
        ("null", "P106", "cast(null as string)"),
        ("interval 1 day", "P106", "cast(null as string)"),
        ("cast(a as variant)", "P106", None),
        ("cast(a as strin)", "P112", None),
        ("now()", "P107", None),
        ("current_timestamp", "P107", None),
        ("rand()", "P107", None),
        ("uuid()", "P107", None),
        ("nope", "P110", None),
        ("ab", "P110", None),
        ("q.d", "P110", None),
        ("q.n.w", "P110", None),
        ("s = 1", "P111", "cast(… as int)"),
        ("s + 1", "P111", "cast(… as int)"),
        ("upper(a)", "P111", "cast(… as string)"),
        ("a and p", "P111", None),
        ("if(a, 1, 2)", "P111", None),
        ("coalesce(a, s)", "P111", None),
        ("d = 'yesterday'", "P111", "2024-01-31"),
        ("cast(x as string)", "P111", "cast to decimal first"),
        ("cast(d as int)", "P111", None),
        ("substring(s, 'a')", "P111", "cast(… as int)"),
        ("substring(s)", "P111", None),
        ("r = r", "P111", None),
        ("p + 1", "P111", None),
        ("t - t", "P111", None),
        ("d + 1", "P111", None),
        ("substring(s, l)", "P111", "cast(… as int)"),
        ("a[0]", "P111", None),
        ("s like 'a\\\\b'", "P111", None),
        ("a +", "P112", None),
        ("", "P112", None),
        ("  ", "P112", None),
        ("a b", "P112", None),
        ("(a", "P112", None),
        ("'abc", "P112", None),
        ("a, b", "P112", None),
        ("a = b = p", "P112", None),
        ("a < b <=> p", "P112", None),
        ("p <=> a < b", "P112", None),
        ("a is null = p", "P112", None),
        ("a & b | a", "P112", None),
        ("s || u + 1", "P112", None),
        ("sum(a)", "P113", None),
        ("count(*)", "P113", None),
        ("a + max(b)", "P113", None),
        ("s like u", "P114", None),
        ("s rlike u", "P114", None),
        ("repeat(s, a)", "P114", None),
        ("lpad(s, 99999999, 'x')", "P114", None),
        ("date_trunc(s, t)", "P114", None),
        ("t + interval a day", "P114", "interval 1 day"),
        ("d + interval 1 fortnight", "P101", None),
        ("s rlike '(?=a)'", "P101", None),
        ("s rlike 'a++'", "P101", None),
        ("s rlike '\\\\bx'", "P101", None),
        ("regexp_replace(s, 'a*', '')", "P101", None),
        ("to_date(s, 'dd.MM.yyyy')", "P101", "to_date(…) over ISO text"),
        ("date_format(t, 'EEE')", "P101", "yyyy-MM-dd HH:mm:ss"),
        ("date_trunc('decade', t)", "P101", "year"),
        ("a in (select 1)", "P101", "left semi join"),
        ("select 1", "P112", None),
        ("a as b", "P112", None),
        ("transform(r, v -> v + 1)", "P101", None),
        ("exists(r, v -> v > 1)", "P101", None),
        ("window(t, '1 minute')", "P101", "window: {every: …} in the table"),
        ("explode(r)", "P101", None),
        ("named_struct('a', 1)", "P101", None),
        ("s:field", "P101", None),
        ("{{ x }}", "P101", None),
        ("count(*) filter (where p)", "P101", None),
        ("a is a", "P101", "<=>"),
        ("s collate unicode", "P101", None),
        ("x'ff'", "P101", None),
        ("'a' 'b'", "P101", None),
        ("a?::int", "P101", "try_cast(… as …)"),
        ("array(1, 2)[0]", "P101", None),
        ("read_csv(s)", "P101", None),
        ("getenv(s)", "P101", None),
        ("current_setting(s)", "P101", None),
        ("(1, 2)", "P101", None),
        ("2L + 3::bigint", "P112", "cast(… as …)"),
    ],
)
def test_refused_at_plan_time(text: str, code: str, near: str | None) -> None:
    with pytest.raises(ExpressionError) as caught:
        compile_scalar(text, SCHEMA)
    error = caught.value
    assert error.code == code, str(error)
    if near is not None:
        assert error.nearest == near
    assert error.message == error.message.strip()
    assert error.offset is None or 0 <= error.offset <= len(text)


@pytest.mark.parametrize(
    ("text", "offset"), [("a + nope", 4), ("upper(lenght(s))", 6), ("p and\n  foo(a) > 1", 8), ("a + b = s", 0)]
)
def test_the_offset_points_at_the_mistake(text: str, offset: int) -> None:
    with pytest.raises(ExpressionError) as caught:
        compile_scalar(text, SCHEMA)
    assert caught.value.offset == offset
