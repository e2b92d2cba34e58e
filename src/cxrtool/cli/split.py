"""``cxr split``"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cxrtool.cells import cell
from cxrtool.cli import console
from cxrtool.cli.options import JsonOption, settings_options
from cxrtool.resolved_settings import ResolvedSettings

if TYPE_CHECKING:
    from cxrtool.data.splitting import SplitRecord


@settings_options("data.findings", "data.columns")
def split(
    resolved: ResolvedSettings,
    sheet: Annotated[Path, typer.Argument(help="Sheet to split: CSV, TSV, gz or Parquet.")],
    out: Annotated[Path, typer.Argument(help="Folder for train.csv, valid.csv, test.csv and split.json.")],
    by: Annotated[
        str,
        typer.Option("--by", help="What stays whole: patient, or a column with one value per patient, such as a site."),
    ] = "patient",
    valid: Annotated[float, typer.Option("--valid", help="Share of the patients for valid.")] = 0.1,
    test: Annotated[float, typer.Option("--test", help="Share of the patients for test; 0 writes no test.csv.")] = 0.1,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Random seed; the same seed makes the same split.")] = 0,
    json_output: JsonOption = False,
) -> None:
    """Split one sheet into train, valid and test, so that no patient is in two of them.

    Positive and uncertain labels of the findings are spread evenly, the rarest first. Rows and columns are kept as
    they are, and no image is moved. split.json records shares, seed and digests, and cxr check-data compares the sheets
    with it.

    \b
    cxr split films/all.csv films --valid 0.1 --test 0.2
    cxr split CheXpert-v1.0-small/train.csv splits --findings chexpert14 --seed 7
    cxr split films/all.csv films --by hospital
    """
    from cxrtool.data.splitting import SplitPlan, split_sheet

    data = resolved.settings.data
    record = split_sheet(sheet, out, SplitPlan(valid, test, by, seed), data.label_names, data.sheet_columns)
    if json_output:
        from dataclasses import asdict

        console.print_json({"folder": str(out)} | asdict(record))
        return
    _show(record, out, sheet.parent)


def _show(record: "SplitRecord", out: Path, images: Path) -> None:
    parts = record.parts
    facts = [(what, [getattr(part, what) for part in parts.values()]) for what in ("patients", "studies", "rows")]
    rows: list[list[object]] = [[what, *(f"{count:,}" for count in counts)] for what, counts in facts]
    for name in next(iter(parts.values())).positive:
        rows.append([name, *(_share(part.positive[name], part.uncertain[name], part.rows) for part in parts.values())])
    console.print_table(f"{record.source}: rows with label 1 (and -1) by split", ["", *parts], rows)
    if not next(iter(parts.values())).positive:
        console.warn(f"{record.source} has none of the findings, so patients were split at random; see --findings")
    for split, part in parts.items():
        absent = [name for name, count in part.positive.items() if not count]
        if absent:
            console.warn(f"{split} has no positive label of {', '.join(absent)}; give it a larger share")
    console.say(f"sheets: {out}")
    files = ",".join(f"{split}={out / part.sheet}" for split, part in parts.items())
    console.next_step("check-data", *((out,) if out == images else (images, "--sheet", files)))


def _share(positive: int, uncertain: int, rows: int) -> str:
    more = f" (+ {uncertain:,})" if uncertain else ""
    return f"{positive:,}{more}, {cell(100 * positive / rows, 1)} %"


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("split")(split)
