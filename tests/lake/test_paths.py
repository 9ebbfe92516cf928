"""Paths in the log: what goes in comes out, and nothing leads out of the table."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lodestream.errors import CorruptionError
from lodestream.lake.paths import decode_path, encode_path, partition_folder

ATTACKS = [
    "../secret/s.parquet", "/etc/s.parquet", "file:///etc/s.parquet", "%2e%2e/secret/s.parquet", "a/../../s.parquet",
    "%2fetc/s.parquet", "a/%2e%2e/%2e%2e/s.parquet", "s3://bucket/s.parquet", "a//b.parquet", "", ".", "..", "a/..",
    "./a.parquet", "a%00.parquet", "\\\\host\\s.parquet", "..\\s.parquet", "%2E%2E%2Fs.parquet", "%252e%252e/s.parquet",
    "a/%252e./s.parquet", "file:s.parquet", "FILE%3A///etc/s.parquet", "%ff.parquet", "abfss://x@y/z.parquet", "a/",
]  # fmt: skip


@pytest.mark.parametrize("path", ATTACKS)
def test_a_path_that_leads_out_is_refused(path):
    with pytest.raises(CorruptionError, match="log names a file"):
        decode_path(path, "t")


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=3), st.booleans())
def test_every_partition_value_gives_a_folder_inside_and_comes_back(values, null):
    columns = [f"c {i}" for i in range(len(values))]
    folder = partition_folder(columns, [None if null else v for v in values])
    relative = f"{folder}/part-1-a-0.snappy.parquet"
    assert decode_path(encode_path(relative), "t") == relative
    assert len(folder.split("/")) == len(values)
    assert max(len(os.fsencode(part)) for part in folder.split("/")) <= 200
    assert os.path.normpath(relative) == relative


def test_values_differ_so_do_folders():
    values = ["a", "A", "a/b", "a%2Fb", "x" * 300, "x" * 301, None, "__HIVE_DEFAULT_PARTITION__x", "", " "]
    assert len({partition_folder(["c"], [value]) for value in values}) == len(values)
