"""Both forms of the kernels, for the suites that hold them to the same output."""

import pytest

from lodestream.native import KERNELS, STATE

FORMS = [
    pytest.param(None, id="portable"),
    pytest.param(KERNELS, id="native", marks=pytest.mark.skipif(KERNELS is None, reason=f"lodestream-native: {STATE}")),
]
needs_native = pytest.mark.skipif(KERNELS is None, reason=f"lodestream-native: {STATE}")
