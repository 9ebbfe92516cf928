"""How much memory there is: the machine's, or that of the control group."""

from lodestream.runtime.machine import memory_bytes


def test_a_control_group_may_have_less(tmp_path):
    limit = tmp_path / "memory.max"
    whole = memory_bytes(str(limit))
    assert whole > 1 << 28
    limit.write_text("max\n")
    assert memory_bytes(str(limit)) == whole
    limit.write_text("268435456\n")
    assert memory_bytes(str(limit)) == 1 << 28
    limit.write_text(f"{1 << 60}\n")
    assert memory_bytes(str(limit)) == whole
