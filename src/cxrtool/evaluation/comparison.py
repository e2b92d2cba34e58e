"""Comparison of models: paired differences over the same draws of patients, with p-values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from cxrtool.cells import range_text
from cxrtool.errors import RequestError
from cxrtool.evaluation.intervals import (
    FEW_PATIENTS,
    BootstrapSettings,
    Draws,
    Interval,
    bootstrap,
    percentile_interval,
)
from cxrtool.evaluation.metrics import evaluate, or_none
from cxrtool.evaluation.table import PredictionTable

FIGURES = ("auroc", "auprc")
MEAN = "mean"


@dataclass(frozen=True)
class Candidate:
    """One model, or several runs that differ only in their seed.

    Attributes:
        name: shown in tables and sentences.
        tables: predictions of each run, on the same rows.
    """

    name: str
    tables: tuple[PredictionTable, ...]


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
class Difference:
    """The first candidate's figure minus the second's.

    Attributes:
        first: name of a candidate.
        second: name of another candidate.
        finding: name of a finding, or ``mean``.
        figure: ``auroc`` or ``auprc``.
        value: the difference, None where undefined.
        interval: over draws of patients.
        p_value: two-sided, None where undefined.
        p_holm: p-value corrected for all differences of this figure, separately for means and for findings.
    """

    first: str
    second: str
    finding: str
    figure: str
    value: float | None
    interval: Interval
    p_value: float | None
    p_holm: float | None

    @property
    def beyond_chance(self) -> bool:
        """Whether the corrected p-value is below 0.05."""
        return self.p_holm is not None and self.p_holm < 0.05

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        return {
            "first": self.first,
            "second": self.second,
            "finding": self.finding,
            "figure": self.figure,
            "difference": self.value,
            "interval": self.interval.to_dict(),
            "p_value": self.p_value,
            "p_holm": self.p_holm,
            "beyond_chance": self.beyond_chance,
        }


@dataclass(frozen=True)
class Comparison:
    """Candidates side by side on one split.

    Attributes:
        split: name of the split.
        level: unit of a row.
        studies: number of distinct studies.
        patients: number of distinct patients; the bootstrap draws patients.
        figures: by candidate, finding (or ``mean``) and name of the figure.
        differences: between all pairs of candidates.
    """

    split: str
    level: str
    studies: int
    patients: int
    figures: Mapping[str, Mapping[str, Mapping[str, Figure]]]
    differences: tuple[Difference, ...]

    def sentence(self) -> str:
        """Say in a sentence whether any difference in mean AUROC is larger than chance explains."""
        means = [item for item in self.differences if item.finding == MEAN and item.figure == "auroc"]
        clear = [item for item in means if item.beyond_chance]
        where = f"on {self.split} ({self.studies} studies of {self.patients} patients)"
        if self.patients == 1:
            return f"There is one patient only {where}, so no difference can be told from chance."
        if not clear:
            tested = (item for item in means if item.value is not None and item.p_holm is not None)
            largest = max(tested, key=_size, default=None)
            if largest is None:
                return f"The mean AUROC is undefined {where}, so the models cannot be compared."
            return (
                f"No difference in mean AUROC {where} is larger than chance explains; the largest, "
                f"{largest.first} against {largest.second}, is {largest.value:+.4f} "
                f"({range_text(largest.interval, signed=True)}, Holm p = {largest.p_holm:.2f})."
            ) + self._caution()
        pairs = [
            f"{_better(item)} beats {_worse(item)} by {abs(item.value or 0):.4f} (Holm p = {item.p_holm:.3f})"
            for item in clear
        ]
        return f"In mean AUROC {where}, beyond chance: {'; '.join(pairs)}." + self._caution()

    def _caution(self) -> str:
        few = self.patients < FEW_PATIENTS
        return f" With fewer than {FEW_PATIENTS} patients, intervals mean little." if few else ""

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
        }


def _size(item: Difference) -> float:
    return abs(item.value or 0.0)


def _better(item: Difference) -> str:
    return item.first if (item.value or 0) > 0 else item.second


def _worse(item: Difference) -> str:
    return item.second if (item.value or 0) > 0 else item.first


def compare(candidates: Sequence[Candidate], settings: BootstrapSettings) -> Comparison:
    """Compute the figures of each candidate and the paired differences between all pairs.

    All candidates use the same draws of patients (paired bootstrap). The p-value of a difference is twice the smaller
    share of draws at or beyond zero, with one added to both counts (Davison & Hinkley 1997, 4.2). It is corrected
    after Holm 1979, separately for each figure: over pairs for means, over pairs and findings for findings.

    Args:
        candidates: two or more; their tables must have the same rows with the same labels.
        settings: how patients are drawn.

    Raises:
        RequestError: there are fewer than two, two have the same name, or rows or labels differ.
    """
    names = [candidate.name for candidate in candidates]
    if len(candidates) < 2 or len(set(names)) < len(names):
        raise RequestError(f"cannot compare {', '.join(names) or 'nothing'}", "Name two or more different models.")
    reference = candidates[0].tables[0]
    aligned = [
        Candidate(candidate.name, tuple(align(table, reference, candidate.name) for table in candidate.tables))
        for candidate in candidates
    ]
    values = {candidate.name: _values(candidate) for candidate in aligned}
    draws = {candidate.name: _draws(candidate, settings) for candidate in aligned}
    figures = {
        candidate.name: {
            finding: {
                figure: _figure(values[candidate.name], draws[candidate.name], finding, figure, settings)
                for figure in FIGURES
            }
            for finding in (*reference.findings, MEAN)
        }
        for candidate in aligned
    }
    differences: list[Difference] = []
    for figure in FIGURES:
        for findings in (reference.findings.names, (MEAN,)):
            raw = [
                _difference(first, second, finding, figure, values, draws, settings)
                for first, second in combinations(names, 2)
                for finding in findings
            ]
            differences += _correct(raw)
    return Comparison(
        split=reference.split,
        level=reference.level.value,
        studies=len(set(reference.studies)),
        patients=len(set(reference.patients)),
        figures=figures,
        differences=tuple(differences),
    )


def align(table: PredictionTable, reference: PredictionTable, name: str) -> PredictionTable:
    """Return `table` with its rows in the order of `reference`, matched by study or path.

    Raises:
        RequestError: a row is missing or extra, or labels, split or level differ.
    """
    if (table.split, table.level) != (reference.split, reference.level):
        raise RequestError(
            f"{name} holds the {table.split} split at {table.level} level, but the first table holds "
            f"{reference.split} at {reference.level} level",
            "Compare tables of the same split and level.",
        )
    place = {row_id: row for row, row_id in enumerate(table.ids)}
    unmatched = sorted(set(place) ^ set(reference.ids))
    if unmatched:
        where = f"only in {name}" if unmatched[0] in place else f"missing from {name}"
        raise RequestError(
            f"the rows differ: {unmatched[0]!r} is {where} ({len(unmatched)} unmatched rows)",
            "Make both tables from the same sheet.",
        )
    rows = np.array([place[row_id] for row_id in reference.ids], dtype=np.int64)
    ordered = table.select(rows)
    same = (ordered.mask == reference.mask) & (~reference.mask | (ordered.targets == reference.targets))
    if not same.all():
        row, column = np.argwhere(~same)[0]
        raise RequestError(
            f"{name} has a different label for {reference.findings.names[column]} in {reference.ids[row]!r}",
            "Make both tables from the same sheet, with the same --blank.",
        )
    return ordered


def _values(candidate: Candidate) -> dict[str, dict[str, Draws]]:
    """Return each run's figures by finding and name, [runs], NaN where undefined."""
    evaluations = [evaluate(table) for table in candidate.tables]
    rows = {
        finding: {figure: [getattr(e.labels[finding], figure) for e in evaluations] for figure in FIGURES}
        for finding in candidate.tables[0].findings
    }
    rows[MEAN] = {"auroc": [e.mean_auroc for e in evaluations], "auprc": [e.mean_auprc for e in evaluations]}
    return {
        finding: {figure: np.array(found, dtype=np.float64) for figure, found in row.items()}
        for finding, row in rows.items()
    }


def _draws(candidate: Candidate, settings: BootstrapSettings) -> dict[str, dict[str, Draws]]:
    """Return figures per draw by finding and name, averaged over runs, [B]."""
    runs = [bootstrap(table, settings) for table in candidate.tables]
    return {
        finding: {figure: np.mean([run[finding][figure] for run in runs], axis=0) for figure in FIGURES}
        for finding in (*candidate.tables[0].findings, MEAN)
    }


def _figure(
    values: Mapping[str, Mapping[str, Draws]],
    draws: Mapping[str, Mapping[str, Draws]],
    finding: str,
    figure: str,
    settings: BootstrapSettings,
) -> Figure:
    runs = values[finding][figure]
    return Figure(
        value=or_none(float(runs.mean())),
        interval=percentile_interval(draws[finding][figure], settings.confidence),
        seed_deviation=or_none(float(runs.std(ddof=1))) if len(runs) > 1 else None,
    )


def _difference(
    first: str,
    second: str,
    finding: str,
    figure: str,
    values: Mapping[str, Mapping[str, Mapping[str, Draws]]],
    draws: Mapping[str, Mapping[str, Mapping[str, Draws]]],
    settings: BootstrapSettings,
) -> Difference:
    drawn = draws[first][finding][figure] - draws[second][finding][figure]
    value = float(values[first][finding][figure].mean() - values[second][finding][figure].mean())
    return Difference(
        first=first,
        second=second,
        finding=finding,
        figure=figure,
        value=or_none(value),
        interval=percentile_interval(drawn, settings.confidence),
        p_value=or_none(p_value(drawn)),
        p_holm=None,
    )


def p_value(differences: Draws) -> float:
    """Return the two-sided p-value of bootstrap draws [B] of a difference; NaN if no draw is defined.

    It is twice the smaller share of draws at or beyond zero, with one added to both counts, and at most 1.
    """
    defined = differences[~np.isnan(differences)]
    if len(defined) == 0:
        return float("nan")
    tail = min(int((defined <= 0).sum()), int((defined >= 0).sum()))
    return min(1.0, 2 * (tail + 1) / (len(defined) + 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values by Holm's step-down method (1979, Scandinavian Journal of Statistics 6:65); order is kept."""
    order = np.argsort(p_values, kind="stable")
    corrected = np.empty(len(p_values))
    largest = 0.0
    for step, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - step) * p_values[index]))
        corrected[index] = largest
    return [float(value) for value in corrected]


def _correct(raw: Sequence[Difference]) -> list[Difference]:
    defined = [place for place, item in enumerate(raw) if item.p_value is not None]
    corrected = dict(zip(defined, holm([raw[place].p_value or 0.0 for place in defined]), strict=True))
    return [replace(item, p_holm=corrected.get(place)) for place, item in enumerate(raw)]
