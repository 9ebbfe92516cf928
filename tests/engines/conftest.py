"""What tests of the engine share."""

import pytest

from lodestream.engines.embedded import frames


@pytest.fixture(scope="module")
def one_duckdb():
    """Flows of these tests are connections to one DuckDB: to make one takes longer than all that a small flow does."""
    shared = frames.connect()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lodestream.engines.embedded.flow.connect", lambda *_: shared.cursor())
        yield
    shared.close()
