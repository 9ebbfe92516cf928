"""Which kernels are in use, and what is said when there are none."""

import sys
import types

import numpy as np
import pytest

from lodestream import native
from tests.native import needs_native


@needs_native
def test_the_installed_wheel_is_in_use_and_says_its_version():
    kernels, state = native.find()
    assert kernels is native.KERNELS
    assert kernels.FORM == native.FORM
    assert state == kernels.VERSION


def test_without_the_wheel_there_are_none(monkeypatch):
    monkeypatch.setitem(sys.modules, "lodestream_native", None)
    assert native.find() == (None, "not installed")


def test_a_wheel_of_another_form_is_left_alone(monkeypatch):
    other = types.ModuleType("lodestream_native")
    other.FORM, other.VERSION = native.FORM + 1, "9.9"
    monkeypatch.setitem(sys.modules, "lodestream_native", other)
    kernels, state = native.find()
    assert kernels is None
    assert "install it again" in state


@pytest.mark.parametrize("text", ["cannot open shared object file", "undefined symbol"])
def test_a_wheel_that_does_not_load_says_why(monkeypatch, tmp_path, text):
    (tmp_path / "lodestream_native.py").write_text(f"raise ImportError({text!r})\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "lodestream_native", raising=False)
    kernels, state = native.find()
    assert kernels is None
    assert text in state


@needs_native
def test_memory_that_does_not_fit_is_refused():
    claim, hasher = native.KERNELS.claim, native.KERNELS.KeyHasher(2)
    keys = np.ones(2, np.uint64), np.ones(2, np.uint64), np.ones(2, np.int64)
    with pytest.raises(ValueError, match="power of two"):
        claim(np.zeros(9, np.uint64), *keys, 0, False)
    with pytest.raises(ValueError, match="differ in number"):
        claim(np.zeros(12, np.uint64), keys[0], keys[1][:1], keys[2], 0, False)
    with pytest.raises(ValueError, match="read-only"):
        claim(bytes(96), *keys, 0, False)
    with pytest.raises(ValueError, match="is full"):
        claim(np.full(6, 7, np.uint64), *keys, 0, False)
    with pytest.raises(ValueError, match="whole, aligned"):
        claim(b"123", *keys, 0, False)
    with pytest.raises(ValueError, match="not contiguous"):
        hasher.words(np.zeros(4, np.uint64)[::2], None)
    with pytest.raises(ValueError, match="outside"):
        hasher.bytes(np.array([0, 1, 9], np.int32), b"12", None)
    with pytest.raises(ValueError, match="outside"):
        hasher.bytes(np.array([0, -1, -1], np.int32), b"12", None)
    with pytest.raises(ValueError, match="differ in length"):
        hasher.words(np.zeros(3, np.uint64), None)
