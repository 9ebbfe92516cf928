"""What goes to Spark's Python workers and comes back from them, without Spark."""

import json
import types

import pytest

from lodestream.engines.spark.failures import in_our_words, raised_by_worker
from lodestream.engines.spark.workers import plain_settings
from lodestream.errors import ConfigError, DataLossRefused


def test_an_error_of_ours_is_told_in_our_words():
    text = (
        "org.apache.spark.api.python.PythonException: Traceback (most recent call last):\n"
        '  File "worker.py", line 1, in main\n'
        "lodestream.errors.ConfigError: python step raises too often; mend the function function='clean:f' calls=100\n"
    )
    raised = raised_by_worker(text)
    assert type(raised) is ConfigError
    assert str(raised) == "python step raises too often; mend the function function='clean:f' calls=100"
    assert type(raised_by_worker("lodestream.errors.DataLossRefused: a plan is gone")) is DataLossRefused


@pytest.mark.parametrize(
    "text", ["ValueError: x", "lodestream.errors.Other: x", "see lodestream.errors.ConfigError: x"]
)
def test_an_error_of_others_is_not(text):
    assert raised_by_worker(text) is None


@pytest.mark.parametrize(
    "line", ["ModuleNotFoundError: No module named 'lodestream'", 'java.io.IOException: Cannot run program "/x/python"']
)
def test_a_worker_that_cannot_run_our_code_is_told(line):
    told = in_our_words(f"Job aborted due to stage failure\n  at some.Java\n{line}\n  at more", "silver.orders")
    assert type(told) is ConfigError
    assert told.message.startswith("a worker of Spark has no Lodestream")
    assert told.facts["cause"] == line


def test_settings_can_be_sent():
    given = types.MappingProxyType(
        {"column": "text", "languages": ("en", "de"), "more": types.MappingProxyType({"a": 1})}
    )
    assert json.loads(json.dumps(plain_settings(given))) == {
        "column": "text", "languages": ["en", "de"], "more": {"a": 1},
    }  # fmt: skip
