"""The modules of the engine import each other without a circle; pyspark is not there to show it by importing them."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import lodestream.engines

ROOM = "lodestream.engines.spark"


def imports(path):
    """Modules of the room that a module imports when it is imported itself."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{ROOM}."):
            found.add(node.module.removeprefix(f"{ROOM}."))
        elif isinstance(node, ast.ImportFrom) and node.module == ROOM:
            found.update(name.name for name in node.names)
    return found


def test_no_module_waits_for_itself():
    folder = Path(lodestream.engines.__file__).parent / "spark"
    graph = {path.stem: imports(path) for path in folder.glob("*.py")}
    assert len(graph) > 20
    assert list(TopologicalSorter(graph).static_order())  # raises CycleError
