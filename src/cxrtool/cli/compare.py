"""``cxr compare``"""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cxrtool.cells import cell, interval_text, p_text, range_text
from cxrtool.cli import console
from cxrtool.cli.help_text import OUTPUT
from cxrtool.cli.options import BOOTSTRAP, JsonOption, PaperOption, given_on_command_line, settings_options
from cxrtool.cli.score_options import KeyOption, MapOption, TruthOption, score_files
from cxrtool.cli.signals import graceful_stop
from cxrtool.cli.train import TRAINING
from cxrtool.errors import RequestError
from cxrtool.resolved_settings import ResolvedSettings

if TYPE_CHECKING:
    from cxrtool.evaluation.comparison import Comparison
    from cxrtool.evaluation.difference import Difference
    from cxrtool.tasks.scores import ScoreFiles


_STEP = "train.batch_size"
_READ = "runtime.batch_size"
_MOST_ROWS = 15


@settings_options(
    "eval.split",
    *BOOTSTRAP,
    *(key for key in TRAINING if key != _STEP),
    _READ,
    notes={_READ: "With --train, also images per training step. \\[default of these: 32]"},
)
def compare(
    resolved: ResolvedSettings,
    inputs: Annotated[
        list[Path] | None, typer.Argument(help="Two or more run folders, bundles or predictions.csv files.")
    ] = None,
    train: Annotated[bool, typer.Option("--train", help="First train a model for each policy and seed.")] = False,
    policies: Annotated[
        str, typer.Option("--policies", help="With --train: policies to compare, separated by commas.")
    ] = "u-ignore,u-ones,u-zeros",
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="With --train: number of seeds per policy.")] = 1,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Output folder, which also holds the runs of --train.", rich_help_panel=OUTPUT),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option("--reference", metavar="MODEL", help="Compare each model, or policy, with this one only."),
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(
            "--margin", help="Also test non-inferiority: the largest loss that does not matter, such as 0.02."
        ),
    ] = None,
    truth: TruthOption = None,
    key: KeyOption = None,
    map_: MapOption = None,
    paper: PaperOption = False,
    json_output: JsonOption = False,
) -> None:
    """Compare models on the same patients: differences with intervals and corrected p-values.

    With --train, one model per policy and seed is trained first. After an interruption, the same command continues.

    \b
    cxr compare runs/a runs/b --data CheXpert-v1.0-small --split test
    cxr compare a/eval_test/predictions.csv b/eval_test/predictions.csv
    cxr compare new.csv old.csv other.csv --reference old.csv --margin 0.02
    cxr compare one.csv another.csv --truth groundtruth.csv
    cxr compare --train --policies u-ignore,u-ones,u-zeros --seeds 3 --data CheXpert-v1.0-small --out policies
    """
    if paper and out is None:
        raise RequestError("--paper needs an output folder", "Name one with --out.")
    if train:
        batch_size = given_on_command_line(resolved).get(_READ)
        if batch_size is not None:
            resolved = resolved.changed("command line", **{_STEP: batch_size})
        _compare_policies(resolved, inputs, policies, seeds, out, paper, json_output, reference, margin)
        return
    from cxrtool.tasks.compare import write_comparison

    files = None if truth is None else score_files(truth, truth, key, map_)
    comparison = _compare_models(resolved, inputs or [], reference, margin, files)
    if out is not None:
        write_comparison(out, comparison)
        if paper:
            _write_paper(out, {comparison.split: comparison}, resolved)
    if json_output:
        console.print_json(comparison.to_dict())
        return
    _show_figures({comparison.split: comparison})
    show_differences(comparison)
    _say(comparison)


def _compare_models(
    resolved: ResolvedSettings,
    inputs: list[Path],
    reference: str | None,
    margin: float | None,
    truth: "ScoreFiles | None",
) -> "Comparison":
    from cxrtool.engines.export import with_export
    from cxrtool.evaluation.comparison import check_margin
    from cxrtool.model.resolve import open_model
    from cxrtool.tasks.compare import check_models, compare_models, is_table, reference_name, short_names

    check_models(inputs)
    check_margin(margin)
    names = short_names(inputs)
    named = None if reference is None else reference_name(reference, inputs, names)
    settings = resolved.settings
    if truth is not None:
        return compare_models(inputs, settings, names, reference=named, margin=margin, truth=truth)
    with ExitStack() as stack:
        models = [
            path if is_table(path) else stack.enter_context(with_export(open_model(path), settings.runtime))
            for path in inputs
        ]
        progress = stack.enter_context(console.progress_bar())
        return compare_models(models, settings, names, progress, named, margin)


def _compare_policies(
    resolved: ResolvedSettings,
    inputs: list[Path] | None,
    policies: str,
    seeds: int,
    out: Path | None,
    paper: bool,
    as_json: bool,
    reference: str | None,
    margin: float | None,
) -> None:
    from cxrtool.tasks.policies import compare_policies, parse_policies

    if inputs:
        raise RequestError("--train cannot be combined with models or tables", "Leave out either --train or the paths.")
    if out is None:
        raise RequestError("--train needs an output folder for its runs", "Name one with --out.")
    with graceful_stop() as stop, console.progress_bar() as progress:
        result = compare_policies(resolved, parse_policies(policies), seeds, out, progress, stop, reference, margin)
    if paper:
        _write_paper(out, dict(result.comparisons), resolved)
    if as_json:
        console.print_json(result.to_dict())
        return
    _show_figures(dict(result.comparisons))
    for comparison in result.comparisons.values():
        show_differences(comparison)
    for sentence in result.sentences():
        console.say(sentence)
    for note in dict.fromkeys(note for comparison in result.comparisons.values() for note in comparison.notes):
        console.say(f"note: {note}.")
    console.say(f"files: {out}/policies.json, figures_*.csv, differences_*.csv")


def _write_paper(out: Path, comparisons: "dict[str, Comparison]", resolved: ResolvedSettings) -> None:
    """Write the folder paper/, or paper_<split>/ of several splits."""
    from cxrtool.report.paper import PAPER_NAME, write_comparison_paper
    from cxrtool.tasks.evaluate import bootstrap_settings

    for split, comparison in comparisons.items():
        folder = out / (PAPER_NAME if len(comparisons) == 1 else f"{PAPER_NAME}_{split}")
        write_comparison_paper(folder, comparison, bootstrap_settings(resolved.settings.eval), console.command_line())


def _show_figures(comparisons: "dict[str, Comparison]") -> None:
    """Print one row per model with the mean AUROC and AUPRC of each split."""
    header = ["model", *(f"{split} {name}" for split in comparisons for name in ("AUROC", "AUPRC"))]
    first = next(iter(comparisons.values()))
    rows = []
    for name in first.figures:
        row = [name]
        for comparison in comparisons.values():
            for figure in ("auroc", "auprc"):
                one = comparison.figures[name]["mean"][figure]
                spread = "" if one.seed_deviation is None else f" ± {cell(one.seed_deviation)}"
                row.append(interval_text(one.value, one.interval) + spread)
        rows.append(row)
    seeds = any("±" in cell for row in rows for cell in row)
    spread = "; ± is the standard deviation between seeds" if seeds else ""
    console.print_table(f"mean over findings, 95 % interval over patients{spread}", header, rows)


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("compare")(compare)


def show_differences(comparison: "Comparison") -> None:
    """Print the differences of the mean figures for each pair of models, then those of AUROC by finding.

    With many pairs, only the findings whose interval excludes zero are printed.
    """
    means = [one for one in comparison.differences if one.finding == "mean"]
    findings = [one for one in comparison.differences if one.finding != "mean" and one.figure == "auroc"]
    where = f"on {comparison.split}, {comparison.studies} studies"
    _print_differences(
        f"differences of the means {where}; detectable: with a probability of 80 %", means, comparison.margin
    )
    shown = findings if len(findings) <= _MOST_ROWS else [one for one in findings if one.excludes_zero]
    left_out = len(findings) - len(shown)
    rest = f"; {left_out} more, whose intervals contain zero, are in --out and --json" if left_out else ""
    if shown:
        _print_differences(f"differences in AUROC by finding {where}{rest}", shown, comparison.margin)


def _print_differences(title: str, differences: "list[Difference]", margin: float | None) -> None:
    header = ["pair", "", "difference", "interval", "p", "p (Holm)", "method", "p bootstrap", "p DeLong", "detectable"]
    rows = [
        [
            f"{one.first} - {one.second}",
            one.figure.upper() if one.finding == "mean" else one.finding,
            None if one.value is None else f"{one.value:+.4f}",
            range_text(one.interval, signed=True),
            p_text(one.p_value),
            p_text(one.p_holm),
            one.p_method,
            p_text(one.p_bootstrap),
            p_text(one.p_delong),
            one.detectable,
            *((one.first_not_inferior, one.second_not_inferior) if margin is not None else ()),
        ]
        for one in differences
    ]
    if margin is not None:
        title += f"; ok: not worse than the other by {margin:g}"
        header += ["first ok", "second ok"]
    console.print_table(title, header, rows)


def _say(comparison: "Comparison") -> None:
    console.say(comparison.sentence())
    for note in comparison.notes:
        console.say(f"note: {note}.")
