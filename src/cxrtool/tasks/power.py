"""What a test set can show, from assumptions or from a pilot: detectable differences, and studies needed."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from cxrtool.errors import RequestError
from cxrtool.evaluation.pairing import Candidate, pair_candidates
from cxrtool.evaluation.pilot import Pilot, pilots_of
from cxrtool.evaluation.power import (
    Assumptions,
    TwoSidedTest,
    auroc_width,
    cases_for_rate,
    detectable_difference,
    studies_for_width,
    studies_to_detect,
)
from cxrtool.evaluation.table import read_predictions, to_study_level

SIZES = (100, 200, 500, 1000, 2000, 5000, 10_000)
"""Numbers of studies shown where none is given."""


@dataclass(frozen=True)
class PowerSettings:
    """What is asked.

    Attributes:
        studies: number of studies of the planned test set; None shows `SIZES`, and a pilot's own number.
        difference: true gain in AUROC to find; None asks only for the smallest detectable one.
        width: width of the intervals wanted.
        sensitivity: expected, for the width of its interval.
        specificity: likewise.
        confidence: level of the intervals.
        comparisons: number of comparisons that the level of the test is divided by.
        test: level, before that division, and power.

    Raises:
        RequestError: a value is outside its range.
    """

    studies: int | None = None
    difference: float | None = None
    width: float = 0.1
    sensitivity: float = 0.8
    specificity: float = 0.8
    confidence: float = 0.95
    comparisons: int = 1
    test: TwoSidedTest = field(default_factory=TwoSidedTest)

    def __post_init__(self) -> None:
        for name in ("width", "confidence"):
            if not 0 < getattr(self, name) < 1:
                raise RequestError(
                    f"{name} {getattr(self, name):g} is not between 0 and 1", "Give such as 0.1 or 0.95."
                )
        for name in ("sensitivity", "specificity"):
            if not 0 <= getattr(self, name) <= 1:
                raise RequestError(f"{name} {getattr(self, name):g} is not in [0, 1]", "Give a share, such as 0.8.")
        if self.comparisons < 1 or (self.studies is not None and self.studies < 2):
            raise RequestError("there must be at least one comparison and two studies", "Give larger numbers.")

    @property
    def corrected(self) -> TwoSidedTest:
        """The test at its corrected level."""
        return TwoSidedTest(self.test.alpha / self.comparisons, self.test.power)


@dataclass(frozen=True)
class AtSize:
    """What a number of studies shows.

    Attributes:
        studies: number of studies.
        positives: expected number of positives.
        negatives: expected number of negatives.
        auroc_width: expected width of the interval of the AUROC.
        detectable: smallest detectable gain in AUROC; None if not even an AUROC of 1 is told from the assumed one.
    """

    studies: int
    positives: int
    negatives: int
    auroc_width: float
    detectable: float | None


@dataclass(frozen=True)
class Needed:
    """Studies that something needs; None where it needs more than a thousand million.

    Attributes:
        purpose: ``auroc``, ``sensitivity`` or ``specificity`` (an interval of the given width), or ``difference``.
        target: the width, or the difference.
        positives: expected number of positives.
        negatives: expected number of negatives.
        studies: number of studies.
    """

    purpose: str
    target: float
    positives: int | None
    negatives: int | None
    studies: int | None


@dataclass(frozen=True)
class FindingPower:
    """Answers for one finding, or for assumptions.

    Attributes:
        finding: name of the finding; None for assumptions.
        pilot_studies: number of studies of the pilot; None for assumptions.
        assumed: what is assumed; None if the pilot says nothing.
        reason: why `assumed` is None.
        sizes: what numbers of studies show.
        needed: what intervals and the difference need.
    """

    finding: str | None
    pilot_studies: int | None
    assumed: Assumptions | None
    reason: str | None
    sizes: tuple[AtSize, ...]
    needed: tuple[Needed, ...]


def power_of(assumed: Assumptions, settings: PowerSettings) -> FindingPower:
    """Answer for assumptions."""
    sizes = SIZES if settings.studies is None else (settings.studies,)
    return FindingPower(None, None, assumed, None, *_answers(assumed, sizes, settings))


def power_from_pilot(paths: Sequence[Path], settings: PowerSettings, correlation: float) -> tuple[FindingPower, ...]:
    """Answer for each finding of a pilot: a predictions.csv of ``cxr eval``, or two of the same studies.

    Args:
        paths: one file or two.
        settings: what is asked.
        correlation: of two models' scores within a class, where there is one file.

    Raises:
        RequestError: a file cannot be used, or two differ in rows or labels.
    """
    if len(paths) > 2:
        raise RequestError(f"a pilot is of one model or two, not {len(paths)}", "Give one predictions.csv or two.")
    tables = [to_study_level(read_predictions(path)) for path in paths]
    if len(tables) == 2:
        names = [str(path) for path in paths]
        paired, _ = pair_candidates([Candidate(name, (one,)) for name, one in zip(names, tables, strict=True)])
        tables = [candidate.tables[0] for candidate in paired]
    return tuple(_of_pilot(one, settings) for one in pilots_of(tables, correlation))


def _of_pilot(pilot: Pilot, settings: PowerSettings) -> FindingPower:
    if pilot.assumed is None:
        return FindingPower(pilot.finding, pilot.studies, None, pilot.reason, (), ())
    size = pilot.studies if settings.studies is None else settings.studies
    return FindingPower(pilot.finding, pilot.studies, pilot.assumed, None, *_answers(pilot.assumed, (size,), settings))


def _answers(
    assumed: Assumptions, sizes: Sequence[int], settings: PowerSettings
) -> tuple[tuple[AtSize, ...], tuple[Needed, ...]]:
    test, width, level = settings.corrected, settings.width, settings.confidence
    at_sizes = tuple(
        AtSize(
            studies,
            round(studies * assumed.prevalence),
            round(studies * (1 - assumed.prevalence)),
            auroc_width(assumed, studies, level),
            detectable_difference(assumed, studies, test),
        )
        for studies in sizes
        if min(assumed.cases(studies)) >= 1
    )
    effect = assumed.design_effect
    sensitivity = cases_for_rate(settings.sensitivity, width, level, effect)
    specificity = cases_for_rate(settings.specificity, width, level, effect)
    found = {
        "auroc": (width, studies_for_width(assumed, width, level)),
        "sensitivity": (width, _studies_with(sensitivity, assumed.prevalence)),
        "specificity": (width, _studies_with(specificity, 1 - assumed.prevalence)),
    }
    if settings.difference is not None:
        found["difference"] = (settings.difference, studies_to_detect(assumed, settings.difference, test))
    return at_sizes, tuple(_needed(purpose, target, studies, assumed) for purpose, (target, studies) in found.items())


def _studies_with(cases: int | None, share: float) -> int | None:
    return None if cases is None else -int(-cases // share)


def _needed(purpose: str, target: float, studies: int | None, assumed: Assumptions) -> Needed:
    if studies is None:
        return Needed(purpose, target, None, None, None)
    positives, negatives = (round(cases) for cases in assumed.cases(studies))
    return Needed(purpose, target, positives, negatives, studies)


def describe_power(answers: Sequence[FindingPower], settings: PowerSettings) -> dict[str, object]:
    """Return the document of ``cxr power --json``."""
    return {
        "alpha": settings.test.alpha,
        "comparisons": settings.comparisons,
        "power": settings.test.power,
        "confidence": settings.confidence,
        "sensitivity": settings.sensitivity,
        "specificity": settings.specificity,
        "findings": [asdict(one) for one in answers],
    }
