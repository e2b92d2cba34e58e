"""Options of commands that take scores of another program."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cxrtool.cli.help_text import SCORES
from cxrtool.errors import RequestError

if TYPE_CHECKING:
    from cxrtool.tasks.scores import ScoreFiles

ScoresOption = Annotated[
    Path | None,
    typer.Option(
        "--scores",
        metavar="FILE",
        help="Table of scores of any program, instead of a model and images.",
        rich_help_panel=SCORES,
    ),
]
TruthOption = Annotated[
    Path | None,
    typer.Option(
        "--truth", metavar="FILE", help="Table of labels for --scores: CSV, TSV, Parquet or gz.", rich_help_panel=SCORES
    ),
]
KeyOption = Annotated[
    str | None,
    typer.Option(
        "--key",
        metavar="COLUMN",
        help="Column that identifies rows, such as Study or Path. If not given, it is found.",
        rich_help_panel=SCORES,
    ),
]
MapOption = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        metavar="OTHER=FINDING",
        help="Another name of a finding in these tables; may be repeated.",
        rich_help_panel=SCORES,
    ),
]
ThresholdsOption = Annotated[
    str | None,
    typer.Option("--thresholds", help="With --scores: thresholds by name (Edema=0.3), or a file of cxr tune."),
]


def score_files(
    scores: Path | None, truth: Path | None, key: str | None, renames: list[str] | None
) -> "ScoreFiles | None":
    """Return the files that a command was given; None without --scores.

    Raises:
        RequestError: only a part of them was given.
    """
    if scores is None and truth is None:
        if key is not None or renames:
            raise RequestError("--key and --map belong to --scores and --truth", "Give these too.")
        return None
    if scores is None or truth is None:
        given, absent = ("--truth", "--scores") if scores is None else ("--scores", "--truth")
        raise RequestError(f"{given} needs {absent}", f"Name the file with {absent} FILE.")
    from cxrtool.evaluation.scores import parse_renames
    from cxrtool.tasks.scores import ScoreFiles

    return ScoreFiles(scores, truth, key, parse_renames(renames or ()))
