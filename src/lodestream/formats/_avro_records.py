"""Records of one writer schema to rows of a table."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from lodestream.formats._avro_decode import run_program
from lodestream.formats._avro_program import FAULTS, Limits, RunProgram, Want, compile_program
from lodestream.formats._avro_resolve import Resolver, find_field, find_writer_field
from lodestream.formats._avro_schema import AvroType, field_types
from lodestream.formats._drift import unknown_fields
from lodestream.formats._lines import Lines, compact
from lodestream.formats._wire_nested import Constant
from lodestream.formats._wire_rows import FromLines, Held, Strange, decoded_rows
from lodestream.formats._wire_values import Convert
from lodestream.model.types import DataType
from lodestream.ports.source import Decoded, Reading


class AvroRecords:
    """Decodes records that were written with one schema.

    Args:
        writer: their schema, a record.
        reader: adds aliases and defaults, or None.
        reading: the table's columns and drift.
        timestamps: unit of whole numbers without logical type in timestamp columns, or `logical`.
        limits: what one record may cost.
        run: the interpreter.

    Raises:
        ConfigError: a default of the reader's schema does not fit its column.
    """

    def __init__(
        self, writer: AvroType, reader: AvroType | None, reading: Reading, timestamps: str, limits: Limits,
        run: RunProgram = run_program,
    ) -> None:  # fmt: skip
        self._reading = reading
        self.run = run
        self.limits = limits
        self._parts: list[tuple[str, Convert, DataType | None] | Constant] = []
        resolver = Resolver(timestamps)
        kinds = field_types(writer)
        want: dict[int, Want] = {}
        for column in reading.schema:
            known = find_field(reader, column.name)
            at = find_writer_field(writer, column.name, known)
            if at < 0:
                self._parts.append(resolver.default(known, column.type))
                continue
            kind = writer.fields[at].type
            taken = resolver.take(kind, known.type if known else None, column.type)
            want[at] = taken.want
            self._parts.append((str(at), taken.convert, kinds[at]))
        self._unknown = [(f.name, kinds[i]) for i, f in enumerate(writer.fields) if i not in want]
        self.writer = writer
        self.want = Want(want)
        self.program = compile_program(writer, self.want)

    def decode(self, lines: Lines, skip: int, unit: str) -> Decoded:
        """Rows and rejects of messages in position order, whose first `skip` bytes are not of the record.

        Raises:
            ConfigError: drift is `stop` and there is some.
        """
        strange = self.strange()
        block, starts, ends = compact(lines)
        codes, array = self.run(self.program, block, starts + skip, ends, self.limits)
        bad = np.flatnonzero(codes)
        faults = {int(row): f"parse:avro:{FAULTS[codes[row]]}" for row in bad}
        good = np.flatnonzero(codes == 0) if len(bad) else None
        columns = self.columns(array if good is None else array.take(pa.array(good)))
        return decoded_rows(self._reading, unit, FromLines(lines), good, columns, strange, faults)

    def strange(self) -> Strange:
        """What the writer's schema has beyond the columns. Raises ConfigError when drift is `stop`."""
        return Strange(*unknown_fields(self._reading, self._unknown))

    def columns(self, array: pa.StructArray) -> list[Held]:
        """The declared columns of records that were read."""
        held = []
        for part in self._parts:
            if isinstance(part, tuple):
                name, convert, seen = part
                held.append(Held(*convert(array.field(name)), seen))
            else:
                held.append(Held(part(len(array))))
        return held
