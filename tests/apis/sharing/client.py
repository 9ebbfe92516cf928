"""The `delta-sharing` client in a process of its own, in an environment of its own, as a server of calls.

It is asked with a JSON object a line and answers with a pickle after its length. Everything is done by the client:
its requests, its reading of files, its kernel. Only pandas, which knows no whole numbers with NULLs, is kept from
rounding: columns stay as Arrow has them, and values are plain Python when they are handed over.
"""

import datetime as dt
import json
import math
import os
import pickle
import sys
from types import SimpleNamespace

import delta_sharing
import numpy as np
import pandas as pd
import pyarrow as pa
from delta_sharing import reader
from delta_sharing.protocol import DeltaSharingProfile, Table
from delta_sharing.rest_client import DataSharingRestClient

OUT = os.fdopen(os.dup(1), "wb")
os.dup2(2, 1)  # the client prints


class Exact:
    """An Arrow table whose `to_pandas` keeps Arrow's types."""

    def __init__(self, table):
        self.table = table

    def to_pandas(self, **options):
        return self.table.to_pandas(types_mapper=pd.ArrowDtype, **options)


class ExactDataset:
    """A dataset whose tables are exact."""

    def __init__(self, found):
        self.found = found

    def to_table(self):
        return Exact(self.found.to_table())

    def head(self, rows):
        return Exact(self.found.head(rows))


def plain(value):
    """The same value in plain Python."""
    if isinstance(value, list | tuple):
        return type(value)(map(plain, value))
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if value is pd.NaT:
        return None
    value = value.item() if isinstance(value, np.generic) else value
    value = value.to_pydatetime(warn=False) if isinstance(value, pd.Timestamp) else value
    return value.astimezone(dt.UTC) if isinstance(value, dt.datetime) and value.tzinfo else value


def values(column):
    """Plain Python values of a column; NaN is one only where Arrow says so, else pandas has it for NULL."""
    if isinstance(column.dtype, pd.ArrowDtype):
        found = pa.array(column.array).to_pylist() if len(column) else []
    else:
        found = [None if isinstance(one, float) and math.isnan(one) else one for one in column]
    return [plain(one) for one in found]


def as_objects(frame):
    """The same frame with plain Python values, so that joining frames changes none."""
    made = {name: pd.Series(values(frame[name]), index=frame.index, dtype=object) for name in frame.columns}
    return pd.DataFrame(made, index=frame.index, columns=frame.columns)


found_in, of_file = reader.dataset, reader.DeltaSharingReader._to_pandas
reader.dataset = lambda **options: ExactDataset(found_in(**options))
reader.DeltaSharingReader._to_pandas = staticmethod(lambda *given: as_objects(of_file(*given)))
reader.pa = SimpleNamespace(Table=SimpleNamespace(from_batches=lambda batches: Exact(pa.Table.from_batches(batches))))


def rows(frame):
    names = list(frame.columns)
    columns = [list(one) if one.dtype == object else values(one) for one in (frame[name] for name in names)]
    return names, [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def answer(profile, do, **given):
    client = delta_sharing.SharingClient(profile)
    if do == "lists":
        return [
            [one.name for one in client.list_shares()],
            [(schema.share, schema.name) for one in client.list_shares() for schema in client.list_schemas(one)],
            [f"{table.schema}.{table.name}" for table in client.list_all_tables()],
        ]
    if do == "tables_of":
        schema = delta_sharing.Schema(name=given["schema"], share=given["share"])
        return [table.name for table in client.list_tables(schema)]
    url = f"{profile}#{given.pop('table')}"
    if do == "rows":
        return rows(delta_sharing.load_as_pandas(url, **given))
    if do == "changes":
        return rows(delta_sharing.load_table_changes_as_pandas(url, **given))
    if do == "version":
        return delta_sharing.get_table_version(url, **given)
    if do == "protocol":
        return delta_sharing.get_table_protocol(url, **given).min_reader_version
    if do == "metadata":
        found = delta_sharing.get_table_metadata(url, **given)
        return found.id, json.loads(found.schema_string), list(found.partition_columns), found.configuration
    if do == "files":
        share, schema, name = url.rpartition("#")[2].split(".")
        listed = DataSharingRestClient(DeltaSharingProfile.read_from_file(profile)).list_files_in_table(
            Table(name=name, share=share, schema=schema), **given
        )
        return [(one.url, one.size, one.partition_values) for one in listed.add_files]
    raise ValueError(do)


def main():
    for line in sys.stdin:
        try:
            told = True, answer(**json.loads(line))
        except Exception as error:
            told = False, f"{type(error).__name__}: {error}"
        data = pickle.dumps(told)
        OUT.write(len(data).to_bytes(8, "big") + data)
        OUT.flush()


if __name__ == "__main__":
    main()
