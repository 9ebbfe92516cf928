"""The house rules that no linter knows: each is a check over the source, and each is seen to catch an offender."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "lodestream"
MODULES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(SOURCE.rglob("*.py"))}

MODULE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70
DATETIMES = ("datetime", "datetime.datetime", "date", "datetime.date")
VAGUE = {"utils", "util", "common", "helpers", "helper", "base", "manager", "misc"}

# Whoever catches everything decides what an error means. These do, each for its reason.
CATCH_ALL = {
    "runtime/supervise.py",  # a bug stops its flow, not the others
    "engines/embedded/python_step.py",  # what the user's function raises is data
    "cli/interrupt.py",  # hands the error over to the thread that waits, which raises it
}
MAY_LOOK_OUT = ("app.py", "cli/")
# The children of a crash test are whole processes, which run by the machine's clock as the app does.
ALSO_LOOKS_OUT = {("operations/chaos.py", "time.time_ns")}
COMPONENTS = [path for room in ("sources", "formats", "sinks") for path in sorted((SOURCE / room).glob("[!_]*.py"))]


def vague_name(path, _tree):
    return [path] if Path(path).stem.strip("_") in VAGUE else []


def no_docstring(_path, tree):
    said = ast.get_docstring(tree)
    return [] if said and said.strip() else ["module"]


def too_long(_path, tree):
    last = max((node.end_lineno for node in tree.body), default=0)
    found = [f"{last} lines"] if last > MODULE_LINES_MAX else []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = node.end_lineno - node.lineno + 1
            if lines > FUNCTION_LINES_MAX:
                found.append(f"{node.name}: {lines} lines")
    return found


def environment_and_clock(path, tree):
    """Uses of the environment and of the wall clock; durations (`monotonic`, `perf_counter`) are anybody's."""
    if path.startswith(MAY_LOOK_OUT):
        return []
    wanted = {"os.environ", "os.environb", "os.getenv", "time.time", "time.time_ns"}
    wanted |= {f"{kind}.{name}" for kind in DATETIMES for name in ("now", "utcnow", "today")}
    found = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return [name for name in found if name in wanted and (path, name) not in ALSO_LOOKS_OUT]


def catch_all(path, tree):
    """Handlers of any error that do not raise it again."""
    if path in CATCH_ALL:
        return []
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            caught = {"everything" if kind is None else ast.unparse(kind) for kind in kinds}
            last = node.body[-1]
            again = isinstance(last, ast.Raise) and last.exc is None
            if caught & {"everything", "Exception", "BaseException"} and not again:
                found.append(f"line {node.lineno}")
    return found


CHECKS = (vague_name, no_docstring, too_long, environment_and_clock, catch_all)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_no_module_offends(check):
    assert len(MODULES) > 100
    found = {}
    for module, tree in MODULES.items():
        path = module.relative_to(SOURCE).as_posix()
        if offences := check(path, tree):
            found[path] = offences
    assert found == {}


@pytest.mark.parametrize(
    ("check", "path", "text"),
    [
        (vague_name, "lake/utils.py", ""),
        (vague_name, "lake/_helpers.py", ""),
        (no_docstring, "lake/x.py", "import os\n"),
        (no_docstring, "lake/__init__.py", ""),
        (too_long, "lake/x.py", "x = 1\n" * (MODULE_LINES_MAX + 1)),
        (too_long, "lake/x.py", "class A:\n  def f(self):\n" + "    x = 1\n" * FUNCTION_LINES_MAX),
        (environment_and_clock, "lake/x.py", "import os\nos.environ['HOME']\n"),
        (environment_and_clock, "lake/x.py", "from os import environ\n"),
        (environment_and_clock, "lake/x.py", "import time\nclock = time.time\n"),
        (environment_and_clock, "lake/x.py", "from time import time_ns\n"),
        (
            environment_and_clock,
            "lake/x.py",
            "from datetime import UTC, datetime\ndatetime.now(UTC)\n",
        ),
        (catch_all, "lake/x.py", "try:\n  f()\nexcept Exception:\n  pass\n"),
        (catch_all, "lake/x.py", "try:\n  f()\nexcept:\n  pass\n"),
        (catch_all, "lake/x.py", "try:\n  f()\nexcept (OSError, BaseException) as e:\n  raise ValueError from e\n"),
    ],
)
def test_an_offender_is_seen(check, path, text):
    assert check(path, ast.parse(text)) != []


def test_clean_up_and_durations_are_allowed():
    text = "import time\ntry:\n  time.monotonic()\nexcept BaseException:\n  close()\n  raise\n"
    assert catch_all("lake/x.py", ast.parse(text)) == environment_and_clock("lake/x.py", ast.parse(text)) == []


def test_import_loads_nothing_from_elsewhere():
    """Not even the package's own modules: the public names come when they are first used."""
    program = """
import json, sys
before = set(sys.modules)
import lodestream
print(json.dumps(sorted(set(sys.modules) - before)))
lodestream.ProjectError
print(json.dumps(sorted(set(sys.modules) - before)))
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    first, later = (json.loads(line) for line in run.stdout.splitlines())
    foreign = [name for name in first if name.split(".")[0] not in sys.stdlib_module_names and name != "lodestream"]
    assert "lodestream" in first
    assert foreign == []
    assert "lodestream.project.mistakes" in later, "the list does not see what is loaded"


@pytest.mark.parametrize("path", COMPONENTS, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_every_component_has_its_test(path):
    assert (ROOT / "tests" / path.parent.name / f"test_{path.stem}.py").exists()


def test_every_exit_code_of_an_error_is_documented():
    documented = re.findall(r"^\| (\d+) \|", (ROOT / "docs/reference/cli.md").read_text(encoding="utf-8"), re.MULTILINE)
    declared = {}
    for tree in MODULES.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and node.name.endswith(("Error", "Refused")):
                for line in node.body:
                    if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == "exit_code":
                        declared[node.name] = str(ast.literal_eval(line.value))
    assert {"LodestreamError", "ConfigError", "DataLossRefused"} <= declared.keys()
    assert {name: code for name, code in declared.items() if code not in documented} == {}
    assert len(set(declared.values())) == len(declared), "two kinds of error end with one code"
