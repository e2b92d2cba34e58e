"""A table of ``cxr predict`` as Parquet files, whose columns have types and are read without the others."""

import csv
from collections.abc import Iterator
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Any

from cxrtool.errors import RequestError
from cxrtool.evaluation.table_kind import MARK
from cxrtool.files import replacing

ROWS_PER_FILE = 1_000_000
"""About as many, since a piece of the table is never divided."""
_TEXT = ("path", "positive", "error", "warnings", MARK)
_PIECE = 16 * 2**20


def write_parquet(table: Path, folder: Path, rows_per_file: int = ROWS_PER_FILE) -> list[Path]:
    """Write a table to ``part-00000.parquet`` and so on, and remove parts in `folder` from an earlier, longer table.

    Probabilities are float64, null where an image could not be read; other columns are text. Memory does not grow with
    the table.

    Args:
        table: CSV of ``cxr predict``.
        folder: where the files go.
        rows_per_file: after so many rows a new file begins.

    Raises:
        RequestError: pyarrow is not installed.
        WriteError: a file cannot be written.
    """
    written: list[Path] = []
    pieces = _pieces(table)
    piece = next(pieces, None)
    while piece is not None:
        path = folder / f"part-{len(written):05d}.parquet"
        rows = 0
        with replacing(path) as partial, ExitStack() as stack:
            writer = stack.enter_context(_arrow("pyarrow.parquet").ParquetWriter(partial, piece.schema))
            while piece is not None and rows < rows_per_file:
                writer.write_batch(piece)
                rows += len(piece)
                piece = next(pieces, None)
        written.append(path)
    for old in folder.glob("part-*.parquet"):
        if old not in written:
            old.unlink()
    return written


def _pieces(table: Path) -> Iterator[Any]:
    """Yield the table as record batches; a table without rows is one empty batch."""
    arrow, reader = _arrow("pyarrow"), _arrow("pyarrow.csv")
    with table.open(encoding="utf-8", newline="") as file:
        header = next(csv.reader(file))
    types = {name: arrow.string() if name in _TEXT else arrow.float64() for name in header}
    found = reader.open_csv(
        table,
        read_options=reader.ReadOptions(block_size=_PIECE),
        parse_options=reader.ParseOptions(newlines_in_values=True),
        convert_options=reader.ConvertOptions(column_types=types, strings_can_be_null=False),
    )
    empty = arrow.RecordBatch.from_pylist([], schema=found.schema)
    yield next(found, empty)
    yield from found


def _arrow(module: str) -> Any:
    try:
        return import_module(module)
    except ImportError:
        raise RequestError("--parquet needs pyarrow", "Install it: pip install 'cxrtool[parquet]'.") from None
