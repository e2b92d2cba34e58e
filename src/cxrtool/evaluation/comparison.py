"""Comparison of models: paired differences on the same patients, with p-values."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from cxrtool.errors import RequestError
from cxrtool.evaluation.delong import Influence, influence, mean_influence, paired_difference
from cxrtool.evaluation.difference import MEAN, Difference
from cxrtool.evaluation.drawn_areas import AREAS, bootstrap_areas
from cxrtool.evaluation.intervals import BootstrapSettings, Draws, Interval, percentile_interval
from cxrtool.evaluation.metrics import evaluate, or_none
from cxrtool.evaluation.paired_test import ALPHA, Estimate, at_floor, bootstrap_estimate, counted_p_value, holm
from cxrtool.evaluation.pairing import Candidate, identity, pair_candidates
from cxrtool.evaluation.verdict import Subject, notes_on, sentence_on


@dataclass(frozen=True)
class Figure:
    """A figure of a candidate.

    Attributes:
        value: mean over its runs, None where undefined.
        interval: over draws of patients.
        seed_deviation: standard deviation over runs, None with one run.
    """

    value: float | None
    interval: Interval
    seed_deviation: float | None

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        return {"value": self.value, "interval": self.interval.to_dict(), "seed_deviation": self.seed_deviation}


@dataclass(frozen=True)
class Comparison:
    """Candidates side by side on one split.

    Attributes:
        split: name of the split.
        level: unit of a row.
        studies: number of distinct studies.
        patients: number of distinct patients; the bootstrap draws patients.
        figures: by candidate, finding (or ``mean``) and name of the figure.
        differences: between all pairs of candidates, or between each candidate and the reference.
        settings: draws of patients and level of the intervals.
        notes: what was left out or assumed, and what the p-values cover.
        reference: candidate that all others are compared with; None compares all pairs.
        margin: margin of non-inferiority, None if none was given.
    """

    split: str
    level: str
    studies: int
    patients: int
    figures: Mapping[str, Mapping[str, Mapping[str, Figure]]]
    differences: tuple[Difference, ...]
    settings: BootstrapSettings
    notes: tuple[str, ...] = ()
    reference: str | None = None
    margin: float | None = None

    def sentence(self) -> str:
        """Say which differences in AUROC, of the mean and by finding, are larger than chance explains."""
        subject = Subject(self.split, self.studies, self.patients, self.settings)
        return sentence_on(subject, [item for item in self.differences if item.figure == "auroc"])

    def to_dict(self) -> dict[str, object]:
        """Return the document of ``cxr compare --json``."""
        return {
            "split": self.split,
            "level": self.level,
            "studies": self.studies,
            "patients": self.patients,
            "candidates": {
                name: {
                    finding: {figure: value.to_dict() for figure, value in row.items()} for finding, row in rows.items()
                }
                for name, rows in self.figures.items()
            },
            "differences": [item.to_dict() for item in self.differences],
            "sentence": self.sentence(),
            "notes": list(self.notes),
            "reference": self.reference,
            "margin": self.margin,
            "draws": self.settings.draws,
            "confidence": self.settings.confidence,
        }


def compare(
    candidates: Sequence[Candidate],
    settings: BootstrapSettings,
    reference: str | None = None,
    margin: float | None = None,
) -> Comparison:
    """Compute the figures of each candidate and the paired differences between them.

    The p-value and interval of a difference of AUROC are those of `paired_difference`. Those of AUPRC come from the
    same draws of patients for all candidates: counted by `counted_p_value`, and where no draw lies beyond zero, so that
    counting cannot tell how far it is, from the normal tail of the bootstrap's standard error. If all candidates have
    two or more runs, both contain the spread between runs (`Estimate.with_seeds`).

    P-values are corrected after Holm 1979, separately for each figure: over pairs for means, over pairs and findings
    for findings. Candidates with the same scores count as one.

    Args:
        candidates: two or more; their tables must have the same rows with the same labels and patients.
        settings: how patients are drawn.
        reference: name of the candidate that each other is compared with; None compares all pairs.
        margin: margin of non-inferiority, between 0 and 1.

    Raises:
        RequestError: see `pair_candidates`; `reference` is no candidate, or `margin` is out of range.
    """
    check_margin(margin)
    paired, notes = pair_candidates(candidates)
    pairs = _pairs([one.name for one in paired], reference)
    models = _measure(paired, settings)
    first = paired[0].tables[0]
    columns: dict[str, int | None] = {name: column for column, name in enumerate(first.findings)} | {MEAN: None}
    groups = {finding: _groups(paired, column) for finding, column in columns.items()}
    differences: list[Difference] = []
    for figure in AREAS:
        for findings in (first.findings.names, (MEAN,)):
            raw = [
                _difference(models[one], models[other], finding, figure, groups[finding], settings)
                for one, other in pairs
                for finding in findings
            ]
            differences += [replace(item, margin=margin) for item in _correct(raw, groups)]
    found = tuple(differences)
    return Comparison(
        split=first.split,
        level=first.level.value,
        studies=len(set(first.studies)),
        patients=len(set(first.patients)),
        figures={name: model.figures(settings) for name, model in models.items()},
        differences=found,
        settings=settings,
        notes=notes + notes_on(found, {one.name: len(one.tables) for one in paired}, settings),
        reference=reference,
        margin=margin,
    )


def check_margin(margin: float | None) -> None:
    """Check a margin of non-inferiority.

    Raises:
        RequestError: it is not between 0 and 1.
    """
    if margin is not None and not 0 < margin < 1:
        raise RequestError(
            f"a margin of {margin:g} is not between 0 and 1", "Use the largest loss that does not matter, such as 0.02."
        )


def _pairs(names: Sequence[str], reference: str | None) -> list[tuple[str, str]]:
    if reference is None:
        return list(combinations(names, 2))
    if reference not in names:
        raise RequestError(f"the reference {reference!r} is not compared", f"Name one of {', '.join(names)}.")
    return [(name, reference) for name in names if name != reference]


@dataclass(frozen=True)
class _Model:
    """A candidate's figures: of each run [k] and of each draw [B], by finding and figure; and patients' influence."""

    name: str
    values: Mapping[str, Mapping[str, Draws]]
    draws: Mapping[str, Mapping[str, Draws]]
    influences: Mapping[str, Influence]

    def figures(self, settings: BootstrapSettings) -> dict[str, dict[str, Figure]]:
        """Return the figures by finding and name."""
        return {
            finding: {
                figure: Figure(
                    value=or_none(float(runs.mean())),
                    interval=percentile_interval(self.draws[finding][figure], settings.confidence),
                    seed_deviation=or_none(float(runs.std(ddof=1))) if len(runs) > 1 else None,
                )
                for figure, runs in row.items()
            }
            for finding, row in self.values.items()
        }

    def influence_of(self, finding: str) -> list[Influence]:
        """Return what each patient adds to the AUROC of a finding, or of all for ``mean``."""
        return list(self.influences.values()) if finding == MEAN else [self.influences[finding]]


def _measure(candidates: Sequence[Candidate], settings: BootstrapSettings) -> dict[str, _Model]:
    first = candidates[0].tables[0]
    names, group = np.unique(np.asarray(first.patients), return_inverse=True)
    drawn = iter(bootstrap_areas([table for candidate in candidates for table in candidate.tables], settings))
    models = {}
    for candidate in candidates:
        runs = [next(drawn) for _ in candidate.tables]
        models[candidate.name] = _Model(
            name=candidate.name,
            values=_values(candidate),
            draws={
                finding: {figure: np.mean([run[finding][figure] for run in runs], axis=0) for figure in AREAS}
                for finding in (*first.findings, MEAN)
            },
            influences={
                finding: _influence(candidate, column, group, len(names))
                for column, finding in enumerate(first.findings)
            },
        )
    return models


def _influence(candidate: Candidate, column: int, group: NDArray[np.int64], count: int) -> Influence:
    rows = np.flatnonzero(candidate.tables[0].mask[:, column])
    return mean_influence(
        [
            influence(table.targets[rows, column], table.scores[rows, column], group[rows], count)
            for table in candidate.tables
        ]
    )


def _values(candidate: Candidate) -> dict[str, dict[str, Draws]]:
    """Return each run's figures by finding and name, [runs], NaN where undefined."""
    evaluations = [evaluate(table) for table in candidate.tables]
    rows = {
        finding: {figure: [getattr(e.labels[finding], figure) for e in evaluations] for figure in AREAS}
        for finding in candidate.tables[0].findings
    }
    rows[MEAN] = {"auroc": [e.mean_auroc for e in evaluations], "auprc": [e.mean_auprc for e in evaluations]}
    return {
        finding: {figure: np.array(found, dtype=np.float64) for figure, found in row.items()}
        for finding, row in rows.items()
    }


def _groups(candidates: Sequence[Candidate], column: int | None) -> dict[str, int]:
    """Number the candidates, those with the same scores alike."""
    numbers: dict[tuple[bytes, ...], int] = {}
    return {one.name: numbers.setdefault(identity(one, column), len(numbers)) for one in candidates}


def _difference(
    first: _Model, second: _Model, finding: str, figure: str, groups: Mapping[str, int], settings: BootstrapSettings
) -> Difference:
    runs = [model.values[finding][figure] for model in (first, second)]
    value = float(runs[0].mean() - runs[1].mean())
    drawn = first.draws[finding][figure] - second.draws[finding][figure]
    percentiles, counted = percentile_interval(drawn, settings.confidence), counted_p_value(drawn)
    ours = [model.influence_of(finding) for model in (first, second)]
    published = None
    if figure == "auroc":
        estimate = paired_difference(*ours)
        published = or_none(estimate.normal_p_value)
        method = "obuchowski" if any(one.repeated for one in ours[0]) else "delong"
        interval, p = estimate.interval(settings.confidence, method), estimate.p_value
    else:
        estimate, interval, p, method = bootstrap_estimate(value, drawn), percentiles, counted, "bootstrap"
        if at_floor(drawn) and not math.isnan(estimate.standard_error):
            p, method = min(p, estimate.p_value), "normal tail"
    covers_seeds = all(len(run) > 1 for run in runs) and not math.isnan(estimate.standard_error)
    without_seeds = p if covers_seeds else None
    if groups[first.name] == groups[second.name] and not math.isnan(p):
        estimate, interval, p, method = Estimate(0.0, 0.0), replace(interval, low=0.0, high=0.0), 1.0, "identical"
    elif covers_seeds:
        method = method if figure == "auroc" else "normal tail"
        estimate = estimate.with_seeds(*runs)
        interval, p = estimate.interval(settings.confidence, method), estimate.p_value
    return Difference(
        first=first.name,
        second=second.name,
        finding=finding,
        figure=figure,
        value=or_none(value),
        interval=interval,
        p_value=or_none(p),
        p_holm=None,
        p_method=None if math.isnan(p) else method,
        p_delong=published,
        p_bootstrap=or_none(counted),
        bootstrap_interval=percentiles,
        p_without_seeds=without_seeds,
        covers_seeds=covers_seeds,
        estimate=estimate,
        alpha=min(ALPHA, round(1 - settings.confidence, 9)),
    )


def _correct(raw: Sequence[Difference], groups: Mapping[str, Mapping[str, int]]) -> list[Difference]:
    """Correct p-values after Holm; pairs whose scores are those of another pair count once, identical ones not."""

    def key(item: Difference) -> tuple[str, frozenset[int]]:
        group = groups[item.finding]
        return item.finding, frozenset((group[item.first], group[item.second]))

    tested = {key(item): item for item in raw if item.p_value is not None and not item.identical}
    corrected = dict(zip(tested, holm([item.p_value or 0.0 for item in tested.values()]), strict=True))
    return [
        replace(
            item,
            p_holm=1.0 if item.identical else corrected.get(key(item)),
            comparisons=len(tested),
            detectable=_detectable(item, len(tested)),
        )
        for item in raw
    ]


def _detectable(item: Difference, comparisons: int) -> float | None:
    if item.identical or item.value is None:
        return None
    return or_none(item.estimate.detectable(comparisons, item.alpha))
