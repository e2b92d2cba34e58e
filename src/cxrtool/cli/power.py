"""``cxr power``"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cxrtool.cells import cell, exact
from cxrtool.cli import console
from cxrtool.cli.options import JsonOption
from cxrtool.errors import RequestError

if TYPE_CHECKING:
    from cxrtool.tasks.power import AtSize, FindingPower, Needed, PowerSettings


def power(
    pilot: Annotated[
        list[Path] | None,
        typer.Argument(help="A predictions.csv of cxr eval as pilot, or two of the same studies by two models."),
    ] = None,
    auroc: Annotated[
        float | None, typer.Option("--auroc", help="Assumed AUROC, of the worse of two models, instead of a pilot.")
    ] = None,
    prevalence: Annotated[
        float | None, typer.Option("--prevalence", help="Assumed share of positives, instead of a pilot.")
    ] = None,
    correlation: Annotated[
        float | None,
        typer.Option(
            "--correlation",
            help="Assumed correlation of the two models' scores among positives, and among negatives. "
            "\\[default: 0.6; two pilot tables measure it]",
        ),
    ] = None,
    studies: Annotated[
        int | None,
        typer.Option("--studies", help="Size of the planned test set. \\[default: several sizes; that of the pilot]"),
    ] = None,
    difference: Annotated[
        float | None, typer.Option("--difference", help="True gain in AUROC that must be found, such as 0.02.")
    ] = None,
    width: Annotated[float, typer.Option("--width", help="Width wanted of an interval, from end to end.")] = 0.1,
    sensitivity: Annotated[float, typer.Option("--sensitivity", help="Expected, for the width of its interval.")] = 0.8,
    specificity: Annotated[float, typer.Option("--specificity", help="Expected, for the width of its interval.")] = 0.8,
    design_effect: Annotated[
        float | None,
        typer.Option(
            "--design-effect",
            help="Factor of all variances because patients have several studies. \\[default: 1; a pilot measures it]",
        ),
    ] = None,
    alpha: Annotated[float, typer.Option("--alpha", help="Two-sided level of the test.")] = 0.05,
    target: Annotated[float, typer.Option("--power", help="Probability of finding a true difference.")] = 0.8,
    comparisons: Annotated[
        int, typer.Option("--comparisons", help="Number of comparisons that the level is divided by.")
    ] = 1,
    confidence: Annotated[float, typer.Option("--confidence", help="Level of the intervals.")] = 0.95,
    json_output: JsonOption = False,
) -> None:
    """Say what a test set can show: the smallest detectable difference in AUROC, and the studies that intervals need.

    From assumptions, or from the predictions of a pilot.

    \b
    cxr power --auroc 0.88 --prevalence 0.06 --correlation 0.6
    cxr power --auroc 0.88 --prevalence 0.06 --studies 500 --difference 0.02 --width 0.05
    cxr power runs/a/eval_valid/predictions.csv runs/b/eval_valid/predictions.csv --studies 2000
    """
    from cxrtool.evaluation.power import Assumptions, TwoSidedTest
    from cxrtool.tasks.power import PowerSettings, describe_power, power_from_pilot, power_of

    asked = PowerSettings(
        studies, difference, width, sensitivity, specificity, confidence, comparisons, TwoSidedTest(alpha, target)
    )
    given = {"--auroc": auroc, "--prevalence": prevalence}
    if pilot:
        _refuse(given | {"--design-effect": design_effect})
        if len(pilot) > 1:
            _refuse({"--correlation": correlation})
        answers = power_from_pilot(pilot, asked, _or(correlation, _CORRELATION))
    else:
        missing = [name for name, value in given.items() if value is None]
        if auroc is None or prevalence is None:
            raise RequestError(
                f"neither a pilot nor {' and '.join(missing)} is given",
                "Give a predictions.csv, or such as --auroc 0.88 --prevalence 0.06.",
            )
        effect = _or(design_effect, 1.0)
        assumed = Assumptions(auroc, prevalence, _or(correlation, _CORRELATION), effect, effect, effect)
        answers = (power_of(assumed, asked),)
    if json_output:
        console.print_json(describe_power(answers, asked))
        return
    _show(answers, asked)


_CORRELATION = 0.6


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _refuse(options: dict[str, float | None]) -> None:
    for name, value in options.items():
        if value is not None:
            raise RequestError(f"{name} is measured on the pilot", f"Leave out {name}, or the pilot.")


def _show(answers: "Sequence[FindingPower]", asked: "PowerSettings") -> None:
    """Print what is assumed, what each size shows, what each purpose needs, and a sentence."""
    known = [(one, one.assumed) for one in answers if one.assumed is not None]
    for one in answers:
        if one.assumed is None:
            console.warn(f"the pilot says nothing of {one.finding}: {one.reason}")
    rows: list[list[object]] = [
        [
            _name(one),
            *(cell(value, 3) for value in (assumed.auroc, assumed.prevalence)),
            *(cell(value, 2) for value in (assumed.correlation, assumed.area_effect, assumed.difference_effect)),
        ]
        for one, assumed in known
    ]
    title = "measured on the pilot" if known and known[0][0].finding else "assumed"
    header = ["finding", "AUROC", "prevalence", "correlation", "variance factor", "of a difference"]
    console.print_table(f"{title}; factors of 1: one study per patient, binormal scores", header, rows)
    level = f"level {exact(asked.test.alpha)}" + (f" / {asked.comparisons}" if asked.comparisons > 1 else "")
    rows = [
        [
            _name(one),
            size.studies,
            size.positives,
            size.negatives,
            cell(size.auroc_width, 3),
            "none" if size.detectable is None else cell(size.detectable, 4),
        ]
        for one, _ in known
        for size in one.sizes
    ]
    title = f"smallest detectable gain in AUROC (power {exact(asked.test.power)}, two-sided {level})"
    header = ["finding", "studies", "positives", "negatives", "width of the AUROC's interval", "detectable gain"]
    console.print_table(title, header, rows)
    if known:
        header = ["finding", *(_purpose(need.purpose, need.target, asked) for need in known[0][0].needed)]
        rows = [[_name(one), *map(_studies, one.needed)] for one, _ in known]
        title = f"studies needed, with the expected number of positives ({100 * asked.confidence:g} % intervals)"
        console.print_table(title, header, rows)
    for one, assumed in known:
        for size in one.sizes if len(one.sizes) == 1 else ():
            console.say(_sentence(one, assumed.auroc, size, asked))


def _name(one: "FindingPower") -> str:
    return one.finding or "assumed"


def _studies(need: "Needed") -> str:
    return "more than 1,000 million" if need.studies is None else f"{need.studies:,} ({need.positives:,})"


def _purpose(purpose: str, target: float, asked: "PowerSettings") -> str:
    if purpose == "difference":
        return f"a gain of {exact(target)} in AUROC"
    if purpose == "auroc":
        return f"AUROC, {exact(target)} wide"
    return f"{purpose} {exact(getattr(asked, purpose))}, {exact(target)} wide"


def _sentence(one: "FindingPower", auroc: float, size: "AtSize", asked: "PowerSettings") -> str:
    start = f"{one.finding}: with" if one.finding else "With"
    start += f" {size.studies:,} studies ({size.positives:,} positives), "
    odds = f"would be found with a probability of {100 * asked.test.power:g} %"
    if size.detectable is None:
        return f"{start}no gain over an AUROC of {auroc:.3f} {odds}."
    return f"{start}a gain in AUROC from {auroc:.3f} to {auroc + size.detectable:.3f} {odds}."


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(power)
