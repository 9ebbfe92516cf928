import json
import os
import resource
import subprocess
import sys
import time

import pytest

from lodestream.cli.call import EXIT_CODES
from lodestream.errors import (
    AccessError,
    ConfigError,
    ConflictError,
    CorruptionError,
    DataLossRefused,
    LodestreamError,
    TransientError,
)
from tests.cli.conftest import call

HEAVY = ("pyarrow", "duckdb", "deltalake", "pydantic", "sqlglot", "numpy", "rich", "ruamel")


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_help_imports_nothing_heavy_and_is_quick():
    code = (
        "import sys\n"
        "from lodestream.cli import main\n"
        "try:\n    main(['--help'])\n"
        f"finally:\n    print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)\n"
    )
    best = 99.0
    for _ in range(3):
        before, started = cpu_seconds(), time.monotonic()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        best = min(best, cpu_seconds() - before, time.monotonic() - started)
        assert done.stderr.strip() == "[]"
    assert "Prove and repair" in done.stdout
    assert best < 0.6  # 0.2 s on a quiet machine; this one may be shared


def test_every_verb_has_help_and_the_common_options():
    listed = call("--help").out
    for verb in ("init", "demo", "plan", "run", "test", "query", "tail", "status", "explain", "schema", "version",
                 "trace", "reconcile", "chaos", "doctor"):  # fmt: skip
        assert f"\n  {verb} " in listed
        told = call(verb, "--help")
        assert told.code == 0
        for option in ("--project", "--lake", "--env", "--json", "--debug"):
            assert option in told.out
    for group, verbs in (("quarantine", ("list", "show", "replay")), ("table", ("history", "restore"))):
        for verb in verbs:
            assert "--json" in call(group, verb, "--help").out


def test_exit_codes_are_those_of_the_errors():
    errors = (
        LodestreamError,
        ConfigError,
        TransientError,
        DataLossRefused,
        CorruptionError,
        ConflictError,
        AccessError,
    )
    assert {error.exit_code for error in errors} <= set(EXIT_CODES)
    assert len({error.exit_code for error in errors}) == len(errors)


@pytest.mark.parametrize("arguments", [["frob"], ["run", "--bad"], ["query"], ["query", "1", "--format", "xml"]])
def test_a_wrong_command_line_ends_with_2(arguments):
    assert call(*arguments).code == 2


def test_without_a_project_it_says_what_to_do(tmp_path):
    result = call("status", project=tmp_path)
    assert result.code == 3
    assert result.err.startswith("error: ")
    assert "lodestream init" in result.err
    assert "Traceback" not in result.err


def test_an_error_is_an_object_too(tmp_path):
    result = call("status", "--json", project=tmp_path)
    told = result.json["error"]
    assert (told["kind"], told["exit_code"]) == ("ProjectError", 3)
    assert told["diagnostics"][0]["code"] == "D115"


def test_every_mistake_is_told_with_its_place(own_orders):
    silver = own_orders / "tables/silver/orders.yaml"
    silver.write_text(silver.read_text().replace("amount / quantity", "amuont / quantity") + "bogus: 1\n")
    result = call("plan", project=own_orders)
    assert result.code == 3
    assert "tables/silver/orders.yaml:5" in result.err
    assert "nearest='amount'" in result.err
    assert "bogus" in result.err


def test_common_options_stand_before_or_after_the_verb(orders, monkeypatch):
    assert call("-C", str(orders), "--json", "status").json["project"] == "shop"
    assert call("status", "--json", "-C", str(orders)).json["project"] == "shop"
    monkeypatch.chdir(orders)
    assert call("status", "--json").json["project"] == "shop"
    assert not call("status", "--json", "--lake", "elsewhere").json["tables"][0]["exists"]
    assert call("status", "--env", "nope").code == 3


def run_process(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **environment}
    return subprocess.run(
        [sys.executable, "-m", "lodestream.cli", *arguments], capture_output=True, text=True, env=env, check=False
    )


def test_no_colour_and_no_spinner_away_from_a_terminal(orders):
    done = run_process("-C", str(orders), "status", NO_COLOR="1")
    assert done.returncode == 0
    assert "\x1b" not in done.stdout + done.stderr


def test_a_bug_shows_one_line_and_all_of_it_with_debug(orders, tmp_path):
    code = "import lodestream.cli.version as v; v.platform = None\nfrom lodestream.cli import main; main()"
    for extra, trace in (([], False), (["--debug"], True)):
        done = subprocess.run(
            [sys.executable, "-c", code, "version", *extra], capture_output=True, text=True, check=False, cwd=tmp_path
        )
        assert done.returncode == 1
        assert ("Traceback" in done.stderr) is trace
        assert "NoneType" in done.stderr


def test_version_is_the_packages():
    from importlib.metadata import version

    assert call("version", "--json").json["lodestream"] == version("lodestream")
    assert call("--version").out == f"lodestream {version('lodestream')}\n"


def test_json_is_one_object_or_one_a_line(orders):
    for verb in (["status"], ["plan"], ["explain", "silver.orders"], ["reconcile", "bronze.orders"], ["version"],
                 ["doctor"], ["quarantine", "list"]):  # fmt: skip
        result = call(*verb, "--json", project=orders)
        assert isinstance(json.loads(result.out), dict), verb
    for verb in (["tail", "silver.orders"], ["table", "history", "silver.orders"], ["test"],
                 ["quarantine", "show", "silver.orders"], ["query", "from gold.revenue_per_product"]):  # fmt: skip
        assert call(*verb, "--json", project=orders).lines, verb
