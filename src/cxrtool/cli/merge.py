"""``cxr merge``"""

from pathlib import Path
from typing import Annotated

import typer

from cxrtool.cli import console
from cxrtool.cli.options import JsonOption
from cxrtool.text import counted


def merge(
    parts: Annotated[list[Path], typer.Argument(help="Tables of cxr predict --shard, in any order.")],
    out: Annotated[Path, typer.Argument(help="The whole table to write.")],
    parquet: Annotated[
        Path | None, typer.Option("--parquet", help="Write the table into this folder as Parquet files too.")
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Put the parts of cxr predict --shard together.

    The table is the same to the byte as one process would have written it. Rows that are missing or in two parts are
    refused, and so are parts of several models, settings or lists of inputs, and files that were changed.

    \b
    cxr merge parts/*.csv predictions.csv
    """
    from cxrtool.predict.merge import merge_parts

    merged = merge_parts(parts, out)
    if parquet is not None:
        from cxrtool.predict.parquet import write_parquet

        write_parquet(out, parquet)
    if len(merged.threads) > 1:
        numbers = " and ".join(map(str, merged.threads))
        console.hint(f"the parts were computed with {numbers} threads, which can change the last digit of a number")
    if json_output:
        console.print_json(merged.to_dict())
        return
    console.say(f"{counted(merged.rows, 'image')}, {merged.failed:,} of them unreadable: {out}")


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("merge")(merge)
