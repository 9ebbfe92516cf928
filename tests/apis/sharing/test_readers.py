"""delta-sharing reads every kind of table as we do, in both formats of the protocol."""

import pytest

from lodestream.lake.disk import LocalDisk
from lodestream.lake.table import DeltaTable
from tests.apis.sharing.peer import Anywhere
from tests.lake.rows import rows_of, with_ours
from tests.lake.variants import VARIANTS
from tests.venvs import NoPackagesError


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    try:
        made = Anywhere(tmp_path_factory.mktemp("anywhere"))
    except NoPackagesError as error:
        pytest.skip(str(error))
    yield made
    made.close()


@pytest.mark.parametrize("form", ["parquet", "delta"])
@pytest.mark.parametrize("kind", VARIANTS)
def test_every_kind_of_table_is_read_as_we_read_it(reader, tmp_path, kind, form):
    path = str(tmp_path / kind)
    VARIANTS[kind](path)
    names = list(DeltaTable.open(LocalDisk(), path).snapshot.metadata.schema.names)
    found = rows_of(reader.rows(path, use_delta_format=form == "delta"), names)
    wanted = rows_of(with_ours(path), names)
    if (kind, form) == ("odd_partitions", "delta"):  # the client escapes it, and its kernel unescapes it wrongly
        wanted = [row.replace("𠮷\\U0010ffff", "\\U00010bb7\\U000fffff") for row in wanted]
        wanted.sort()
    assert found == wanted
    assert bool(found) == (kind != "no_rows")
