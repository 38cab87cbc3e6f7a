"""Rows as PostgreSQL's own text, to Parquet and back, without losing a sign.

What has an exact Parquet type gets it; everything else stays PostgreSQL's own text. NULL and the empty text stay
different. The settings that shape text are fixed, so that the same rows give the same bytes years later.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from shared.retention.rules import quoted

if TYPE_CHECKING:
    import pyarrow as pa

# SQL types that Parquet holds exactly. Temporal ones hold no infinity, so a file with one keeps them as text.
_EXACT = {
    "smallint": "int16",
    "integer": "int32",
    "bigint": "int64",
    "boolean": "bool",
    "real": "float32",
    "double precision": "float64",
}
_FINITE = {
    "date": "date32",
    "timestamp without time zone": "timestamp[us]",
    "timestamp with time zone": "timestamp[us, tz=UTC]",
}

# What shapes PostgreSQL's text of a value. Run it in the transaction of every COPY, out and in.
TEXT_SETTINGS = (
    "select set_config('DateStyle', 'ISO, YMD', true), set_config('IntervalStyle', 'postgres', true),"
    " set_config('bytea_output', 'hex', true), set_config('extra_float_digits', '1', true),"
    " set_config('xmlbinary', 'base64', true), set_config('timezone', 'UTC', true)"
)


def line(columns: Iterable[str]) -> str:
    """SQL of a row of table `t` as one line of PostgreSQL's text: CSV, but for backslashes and an empty field at both
    ends, which takes the parentheses."""
    return f"cast(row(null, {', '.join(f't.{quoted(c)}' for c in columns)}, null) as text)"


def parse(data: bytes | memoryview, columns: Mapping[str, str]) -> "pa.Table":
    """Lines of rows as a table; `columns` are names and SQL types in the lines' order."""
    import pyarrow as pa

    # Arrow's own allocator keeps what is freed, once for each thread it uses, and takes longer over it.
    pa.set_memory_pool(pa.system_memory_pool())
    try:
        return _parse(data, {name: _type(kind, finite=True) for name, kind in columns.items()})
    except pa.ArrowInvalid:
        return _parse(data, {name: _type(kind, finite=False) for name, kind in columns.items()})


def _type(kind: str, *, finite: bool) -> "pa.DataType":
    import pyarrow as pa

    name = _EXACT.get(kind) or (_FINITE.get(kind) if finite else None)
    if name is None:
        return pa.string()
    if name.startswith("timestamp"):
        return pa.timestamp("us", "UTC" if "UTC" in name else None)
    return pa.type_for_alias(name)


def _parse(data: bytes | memoryview, types: Mapping[str, "pa.DataType"]) -> "pa.Table":
    import pyarrow as pa
    from pyarrow import csv

    around = max(types, key=len)
    return csv.read_csv(
        pa.BufferReader(data),
        read_options=csv.ReadOptions(
            use_threads=False,
            column_names=[f"{around}(", *types, f"{around})"],
            block_size=max(1 << 20, len(data) // 8),
        ),
        parse_options=csv.ParseOptions(newlines_in_values=True, escape_char="\\"),
        convert_options=csv.ConvertOptions(
            include_columns=list(types),
            column_types=dict(types),
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            true_values=["t"],
            false_values=["f"],
        ),
    )


def pack(table: "pa.Table") -> bytes:
    """The table as one Parquet file, compressed with zstd."""
    import pyarrow as pa
    from pyarrow import parquet

    sink = pa.BufferOutputStream()
    parquet.write_table(table, sink, compression="zstd", compression_level=3)
    return bytes(sink.getvalue())


def unpack(content: bytes) -> "pa.Table":
    """The table of a Parquet file."""
    import pyarrow as pa
    from pyarrow import parquet

    return parquet.read_table(pa.BufferReader(content), use_threads=False)


def same(one: "pa.Table", other: "pa.Table") -> bool:
    """Whether two tables hold the same values; NaN is the same as NaN."""
    if one.schema.names != other.schema.names or one.schema.types != other.schema.types:
        return False
    return one.equals(other) or lines(one, one.schema.names) == lines(other, other.schema.names)


def lines(table: "pa.Table", columns: Sequence[str]) -> bytes:
    """The table's `columns` as CSV that PostgreSQL's COPY takes."""
    import pyarrow as pa
    from pyarrow import csv

    sink = pa.BufferOutputStream()
    csv.write_csv(table.select(list(columns)), sink, csv.WriteOptions(include_header=False))
    return bytes(sink.getvalue())
