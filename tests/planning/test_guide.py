"""What the guide shows is what the loader takes."""

import re
from pathlib import Path

import pytest

from lodestream.model.table import TableName
from lodestream.planning.compile import compile_project
from lodestream.project.load import read_project
from lodestream.project.mistakes import ProjectError

GUIDE = Path(__file__).parents[2] / "docs/guides/declaring.md"


def test_the_examples_of_the_guide_are_a_project(tmp_path, monkeypatch):
    monkeypatch.undo()  # the components that are really there
    blocks = re.findall(r"```yaml\n# (\S+)\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    for name, text in blocks:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    plans = compile_project(read_project(str(tmp_path)), {})
    assert len(plans.flows) == len(blocks) - 1 == 10
    revenue = plans.flows[TableName("gold", "revenue_per_minute")]
    assert str(revenue.schema["revenue"].type) == "decimal(22,2)"


def test_the_python_example_runs():
    (code,) = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    space = {}
    exec(compile(code, "declaring.md", "exec"), space)
    assert [str(name) for name in space["plans"].flows] == ["bronze.orders", "silver.orders"]


def test_the_mistake_in_the_guide_is_told_as_shown(tmp_path, write, sample):
    shown = re.search(r"```text\n(.*?)\n", GUIDE.read_text())[1]
    text = sample["tables/silver/orders.yaml"].replace("keys: [order_id]", "keys: [orderid]")
    with pytest.raises(ProjectError) as error:
        compile_project(read_project(write({"tables/silver/orders.yaml": text})), {})
    assert str(error.value.diagnostics[0]) == shown
