"""Gaps between subgroups: the largest difference of a figure, its interval, and how large it is by chance alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import hypot

import numpy as np
from numpy.typing import NDArray

from cxrtool.evaluation.area_intervals import auroc_interval
from cxrtool.evaluation.delong import structural_components
from cxrtool.evaluation.intervals import BootstrapSettings, Interval, number_patients
from cxrtool.evaluation.metrics import FEW_CASES, auroc
from cxrtool.evaluation.paired_test import holm
from cxrtool.evaluation.rates import rate_interval
from cxrtool.evaluation.subgroups import largest_groups
from cxrtool.evaluation.table import PredictionTable

GAP_FIGURES = ("auroc", "recall", "specificity")
Array = NDArray[np.float64]
_BLOCK = 2**24  # cells of a matrix of permuted groups at a time


@dataclass(frozen=True)
class GroupGap:
    """The largest difference of a figure of one finding between the groups of one attribute.

    Attributes:
        attribute: ``sex``, ``age``, ``projection`` or a column of the sheet.
        finding: name of the finding.
        figure: ``auroc``, ``recall`` or ``specificity``, the last two at the threshold.
        lowest: group with the lowest figure.
        highest: group with the highest figure.
        gap: difference of their figures.
        interval: of the difference of these two groups. They were chosen as the extremes, so it does not show by itself
            that there is a difference; `p_value` does.
        groups: number of groups compared: those with `FEW_CASES` of the cases that count.
        chance: 95th percentile of the gap between random groups of the same sizes.
        p_value: share of random groups with a gap at least as large, with one added to both counts.
        p_holm: corrected over all attributes and findings of this figure.
        permuted: ``patients``, or ``rows`` where the rows of a patient may be in different groups.
    """

    attribute: str
    finding: str
    figure: str
    lowest: str
    highest: str
    gap: float
    interval: Interval
    groups: int
    chance: float
    p_value: float
    p_holm: float
    permuted: str

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON and CSV."""
        return {
            "attribute": self.attribute,
            "finding": self.finding,
            "figure": self.figure,
            "lowest": self.lowest,
            "highest": self.highest,
            "gap": self.gap,
            "low": self.interval.low,
            "high": self.interval.high,
            "groups": self.groups,
            "chance_95": self.chance,
            "p_value": self.p_value,
            "p_holm": self.p_holm,
            "permuted": self.permuted,
        }


def group_gaps(
    table: PredictionTable,
    attributes: Sequence[str],
    settings: BootstrapSettings,
    thresholds: Mapping[str, float] | None = None,
) -> tuple[GroupGap, ...]:
    """Find the largest gaps between the groups of each attribute, and test them by permutation.

    Groups are permuted over patients, or over rows if the rows of a patient may differ, `settings.draws` times. A group
    takes part with `FEW_CASES` positives (recall), negatives (specificity) or both (AUROC).

    The test of AUROC compares sums over a group's cases of the distance between DeLong's placement and the AUROC of all
    cases, which is the linear part of the group's AUROC (Hajek's projection; van der Vaart 1998, chapter 12), because
    sums over thousands of permutations are one product of matrices. The gap itself is of the groups' own AUROCs.

    Args:
        table: scores and labels.
        attributes: as in `subgroup_figures`.
        settings: number and seed of the permutations, and the level of the intervals.
        thresholds: by finding; None leaves out recall and specificity.
    """
    found: list[GroupGap] = []
    for place, attribute in enumerate(attributes):
        groups = largest_groups(table, attribute)
        if len(groups) > 1:
            found += _Permuted(table, attribute, groups, settings, place).gaps(thresholds)
    corrected: dict[int, float] = {}
    for figure in GAP_FIGURES:
        places = [place for place, one in enumerate(found) if one.figure == figure]
        corrected |= dict(zip(places, holm([found[place].p_value for place in places]), strict=True))
    return tuple(replace(one, p_holm=corrected[place]) for place, one in enumerate(found))


class _Permuted:
    """The groups of one attribute, and the same groups over permuted units: patients or rows."""

    def __init__(
        self,
        table: PredictionTable,
        attribute: str,
        groups: Mapping[str, Sequence[int]],
        settings: BootstrapSettings,
        place: int,
    ) -> None:
        self._attribute, self._settings, self._place = attribute, settings, place
        self._names = [name or "not given" for name in groups]
        rows = np.concatenate([np.array(part, dtype=np.int64) for part in groups.values()])
        self._table = table.select(rows)
        self._group = np.repeat(np.arange(len(groups)), [len(part) for part in groups.values()])
        _, self._patients = number_patients(self._table.patients)
        pairs = np.unique(np.stack([self._patients, self._group]), axis=1)
        by_patient = pairs.shape[1] == int(self._patients.max()) + 1
        self.unit = self._patients if by_patient else np.arange(len(self._group))
        self.permuted = "patients" if by_patient else "rows"
        first = np.unique(self.unit, return_index=True)[1]
        # Bytes: a permutation of 20,000 then stays in the first-level cache.
        self._group_of_unit = self._group[first].astype(np.int8)

    def gaps(self, thresholds: Mapping[str, float] | None) -> list[GroupGap]:
        """Return the gaps of all findings and figures; their `p_holm` is not corrected yet."""
        parts = [
            (finding, figure, *self._parts(column, figure, (thresholds or {}).get(finding, 0.0)))
            for column, finding in enumerate(self._table.findings)
            for figure in (GAP_FIGURES if thresholds is not None else GAP_FIGURES[:1])
        ]
        kept = [part for part in parts if part[3].sum() > 1]
        if not kept:
            return []
        permuted = self._permuted_gaps([part[2] for part in kept], [part[3] for part in kept])
        return [
            self._gap(finding, figure, compared, drawn, (thresholds or {}).get(finding, 0.0))
            for (finding, figure, _, compared), drawn in zip(kept, permuted, strict=True)
        ]

    def _cases(self, column: int, figure: str) -> NDArray[np.bool_]:
        counts, positive = self._table.mask[:, column], self._table.targets[:, column] > 0.5
        return counts & {"auroc": np.ones_like(counts), "recall": positive, "specificity": ~positive}[figure]

    def _parts(self, column: int, figure: str, threshold: float) -> tuple[Array, NDArray[np.bool_]]:
        """Return sums per unit [U, 2 k] of values and cases, and which groups have enough cases."""
        cases = self._cases(column, figure)
        positive, scores = self._table.targets[:, column] > 0.5, self._table.scores[:, column]
        sides = [cases & positive, cases & ~positive] if figure == "auroc" else [cases]
        enough = np.all(
            [np.bincount(self._group[side], minlength=len(self._names)) >= FEW_CASES for side in sides], axis=0
        )
        sides = [side & enough[self._group] for side in sides]
        columns: list[tuple[NDArray[np.bool_], Array]] = []
        if figure == "auroc":
            used = sides[0] | sides[1]
            placements = structural_components(positive[used], scores[used])
            for side, values in zip(sides, placements, strict=True):
                columns.append((side, values - values.mean() if len(values) else values))
        else:
            right = scores >= threshold if figure == "recall" else scores < threshold
            columns = [(sides[0], right[sides[0]].astype(np.float64))]
        count = int(self.unit.max()) + 1
        sums = [
            part
            for side, values in columns
            for part in (np.bincount(self.unit[side], values, count), np.bincount(self.unit[side], minlength=count))
        ]
        return np.stack(sums, axis=1).astype(np.float64), enough

    def _permuted_gaps(self, sums: Sequence[Array], compared: Sequence[NDArray[np.bool_]]) -> list[Array]:
        """Return the gap [1 + B] of each figure, of the true groups first."""
        together = np.concatenate(sums, axis=1)
        units, count = len(together), len(self._names)
        draws = self._settings.draws
        rng = np.random.default_rng(np.random.SeedSequence(self._settings.seed, spawn_key=(self._place, 1)))
        totals = [self._group_sums(self._group_of_unit[None], together)]
        step = max(1, _BLOCK // (units * count))
        for start in range(0, draws, step):
            groups = np.tile(self._group_of_unit, (min(step, draws - start), 1))
            totals.append(self._group_sums(rng.permuted(groups, axis=1), together))
        everything = np.concatenate(totals)
        ends = np.cumsum([part.shape[1] for part in sums])
        return [
            _spread(everything[:, :, end - part.shape[1] : end], kept)
            for part, kept, end in zip(sums, compared, ends, strict=True)
        ]

    def _group_sums(self, groups: NDArray[np.int8], sums: Array) -> Array:
        """Return sums [b, G, K] of `sums` [U, K] over the units of each group, for groups [b, U]."""
        # The last group is what the others leave.
        member = (groups[:, None, :] == np.arange(len(self._names) - 1, dtype=np.int8)[:, None]).astype(np.float32)
        found = member.reshape(-1, groups.shape[1]) @ sums.astype(np.float32)
        others = found.reshape(len(groups), len(self._names) - 1, -1).astype(np.float64)
        return np.concatenate([others, sums.sum(axis=0) - others.sum(axis=1, keepdims=True)], axis=1)

    def _gap(
        self,
        finding: str,
        figure: str,
        compared: NDArray[np.bool_],
        drawn: Array,
        threshold: float,
    ) -> GroupGap:
        column = self._table.findings.index(finding)
        figures = {place: self._figure(column, figure, place, threshold) for place in np.flatnonzero(compared).tolist()}
        lowest = min(figures, key=lambda place: figures[place][0])
        highest = max(figures, key=lambda place: figures[place][0])
        observed, permuted = drawn[0], drawn[1:]
        beyond = int((permuted >= observed - 1e-9).sum())
        return GroupGap(
            attribute=self._attribute,
            finding=finding,
            figure=figure,
            lowest=self._names[lowest],
            highest=self._names[highest],
            gap=figures[highest][0] - figures[lowest][0],
            interval=_difference(figures[highest], figures[lowest]),
            groups=int(compared.sum()),
            chance=float(np.quantile(permuted, 0.95)),
            p_value=(beyond + 1) / (len(permuted) + 1),
            p_holm=1.0,
            permuted=self.permuted,
        )

    def _figure(self, column: int, figure: str, place: int, threshold: float) -> tuple[float, Interval]:
        rows = self._cases(column, figure) & (self._group == place)
        positive, scores = self._table.targets[rows, column] > 0.5, self._table.scores[rows, column]
        patients, level = self._patients[rows], self._settings.confidence
        if figure == "auroc":
            return auroc(positive, scores), auroc_interval(positive, scores, patients, None, level)
        right = scores >= threshold if figure == "recall" else scores < threshold
        return float(right.mean()), rate_interval(right, patients, level)


def _spread(sums: Array, compared: NDArray[np.bool_]) -> Array:
    """Return the largest less the smallest figure over groups, [b], for sums [b, G, 2 k] of values and cases."""
    values, cases = sums[:, compared, 0::2], sums[:, compared, 1::2]
    with np.errstate(divide="ignore", invalid="ignore"):
        figures = np.where(cases > 0, values / cases, np.nan).sum(axis=2)
    found: Array = np.nanmax(figures, axis=1) - np.nanmin(figures, axis=1)
    return found


def _difference(first: tuple[float, Interval], second: tuple[float, Interval]) -> Interval:
    """Return the interval of the difference of two independent figures (Newcombe 1998, method 10)."""
    (high, above), (low, below) = first, second
    if above.low is None or above.high is None or below.low is None or below.high is None:
        return Interval(None, None, reason=above.reason or below.reason)
    gap = high - low
    return Interval(
        gap - hypot(high - above.low, below.high - low),
        gap + hypot(above.high - high, low - below.low),
        method="two intervals, squares added",
    )
