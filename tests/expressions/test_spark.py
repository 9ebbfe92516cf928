"""The recorded answers are those that Spark gives today: every row of every expression is asked again."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.expressions.spark_rows import ROWS, load

ROOT = Path(__file__).resolve().parents[2]


def test_every_expression_that_is_written_down_has_recorded_answers() -> None:
    program = "import json; from tools.function_cases import read_cases; print(json.dumps(read_cases()))"
    written = json.loads(
        subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, check=True).stdout
    )
    recorded = {path.stem: [case["text"] for case in load(path.stem)[1]] for path in ROWS.glob("*.jsonl")}
    assert {name: sorted(texts) for name, texts in written.items()} == {n: sorted(t) for n, t in recorded.items()}


@pytest.mark.long
@pytest.mark.skipif(shutil.which("java") is None, reason="Spark needs Java")
def test_spark_gives_the_recorded_answers_byte_for_byte(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "tools.function_rows", "--into", str(tmp_path)], cwd=ROOT, check=True)
    names = sorted(path.name for path in ROWS.iterdir())
    assert names == sorted(path.name for path in tmp_path.iterdir())
    unlike = [name for name in names if (ROWS / name).read_bytes() != (tmp_path / name).read_bytes()]
    assert not unlike
