"""The JDBC driver of PostgreSQL: all of its metadata, prepared statements, portals, cancel. The checks are in Java."""

import os
import subprocess
from pathlib import Path

import pytest

from lodestream.errors import TransientError
from lodestream.testing import maven

DRIVERS = ("42.7.7", "42.5.6")
SOURCE = Path(__file__).with_name("Jdbc.java")

pytestmark = pytest.mark.skipif(maven.missing() is not None, reason=f"needs Java and Maven: {maven.missing()}")


@pytest.fixture(scope="module", params=DRIVERS)
def told(request, shop):
    """What the program said of each check."""
    try:
        driver = maven.class_path([f"org.postgresql:postgresql:{request.param}"])
    except TransientError as error:
        pytest.skip(f"the driver cannot be had: {error.message}")
    done = subprocess.run(
        ["java", "-Xmx256m", "-Duser.timezone=America/New_York", "-cp", driver, str(SOURCE),
         f"jdbc:postgresql://127.0.0.1:{shop.port}/shop", shop.passwords["dev"]],
        capture_output=True, text=True, timeout=300, check=False, env={"PATH": os.environ["PATH"]},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_every_check_passes(told):
    assert [line for line in told if not line.startswith("ok ")] == []
    assert len(told) == SOURCE.read_text().count("        check(")
