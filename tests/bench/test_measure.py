import os
import subprocess
import sys

import pytest

from bench import measure

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")

HOG = """
import time
block = bytearray(b"x") * (64 << 20)
while time.process_time() < 0.3:
    pass
print("ready", flush=True)
input()
"""


def test_counts_time_and_memory_of_children():
    me = os.getpid()
    before = measure.cpu_s(me)
    with subprocess.Popen([sys.executable, "-c", HOG], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout
        child.stdout.readline()
        assert child.pid in measure.tree(me)
        assert measure.peak_mib(child.pid) >= 64
        assert measure.cpu_s(me) - before >= 0.28
        assert measure.system_s(me) < measure.cpu_s(me)
        child.communicate(b"\n")
    assert measure.cpu_s(me) - before >= 0.28  # a child that ended still counts
    assert child.pid not in measure.tree(me)
