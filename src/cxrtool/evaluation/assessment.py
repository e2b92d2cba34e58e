"""Assessment of a model on a split: figures, intervals, calibration, operating points, subgroups and warnings."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from cxrtool.evaluation.area_intervals import auprc_interval, auroc_interval
from cxrtool.evaluation.calibration import UNSCALED, CalibrationOrigin, Scaling
from cxrtool.evaluation.calibration_figures import CalibrationFigures, calibration_figures
from cxrtool.evaluation.delong import delong
from cxrtool.evaluation.drawn_areas import bootstrap_areas
from cxrtool.evaluation.fairness import GroupGap, group_gaps
from cxrtool.evaluation.honest import HonestRates, honest_rates
from cxrtool.evaluation.intervals import (
    ONE_PATIENT,
    BootstrapSettings,
    Draws,
    Interval,
    few_patients_warnings,
    number_patients,
    percentile_interval,
)
from cxrtool.evaluation.metrics import Evaluation, evaluate
from cxrtool.evaluation.operating import DecisionCurve, OperatingPoint, decision_curves, operating_points
from cxrtool.evaluation.rates import threshold_intervals
from cxrtool.evaluation.subgroups import SubgroupFigures, capped_group_warnings, small_group_warnings, subgroup_figures
from cxrtool.evaluation.table import PredictionTable
from cxrtool.evaluation.thresholds import ThresholdOrigin


@dataclass(frozen=True)
class AssessmentSettings:
    """Options of an assessment.

    Attributes:
        bootstrap: how patients are drawn.
        by: attributes by which subgroups are formed.
        prevalence: assumed for predictive values; None uses the split's own.
    """

    bootstrap: BootstrapSettings = field(default_factory=BootstrapSettings)
    by: tuple[str, ...] = ("sex", "age", "projection")
    prevalence: float | None = None


@dataclass(frozen=True)
class Assessment:
    """Figures of a model on a split.

    Attributes:
        evaluation: areas under the curves and figures at the thresholds.
        settings: options of the assessment.
        patients: number of distinct patients; the bootstrap draws patients.
        intervals: by finding (or ``mean``) and figure; DeLong's interval is ``auroc_delong``.
        raw: calibration figures of the raw probabilities, by finding; None for scores that are not probabilities.
        calibrated: those of the calibrated probabilities; None if the bundle has no calibration.
        calibrated_in_sample: findings whose calibration was fitted on these rows, so that its figures are too good.
        operating: operating points by finding.
        decision_curves: net benefit by finding, of the calibrated probabilities if there are any; None for
            scores that are not probabilities.
        honest: rates at thresholds chosen without the rows they count; None unless the bundle's thresholds were chosen
            on these rows.
        subgroups: figures by attribute, group and finding.
        gaps: largest differences between groups, by attribute, finding and figure.
        warnings: messages on figures that are undefined, rest on too few rows or are not out of sample.
    """

    evaluation: Evaluation
    settings: AssessmentSettings
    patients: int
    intervals: Mapping[str, Mapping[str, Interval]]
    raw: Mapping[str, CalibrationFigures] | None
    calibrated: Mapping[str, CalibrationFigures] | None
    calibrated_in_sample: frozenset[str]
    operating: Mapping[str, OperatingPoint]
    decision_curves: Mapping[str, DecisionCurve] | None
    honest: Mapping[str, HonestRates] | None
    subgroups: tuple[SubgroupFigures, ...]
    gaps: tuple[GroupGap, ...]
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, object]:
        """Return the document of ``cxr eval --json``: the keys of `Evaluation.to_dict` and more."""
        figures = self.evaluation.to_dict()
        labels = {
            finding: metrics.to_dict()
            | {
                "intervals": _plain(self.intervals[finding]),
                "calibration": {
                    "raw": None if self.raw is None else self.raw[finding].to_dict(),
                    "calibrated": None if self.calibrated is None else self.calibrated[finding].to_dict(),
                    "in_sample": None if self.calibrated is None else finding in self.calibrated_in_sample,
                },
                "operating_points": asdict(self.operating[finding]),
                "decision_curve": None if self.decision_curves is None else self.decision_curves[finding].to_dict(),
                "honest": None if self.honest is None else self.honest[finding].to_dict(),
            }
            for finding, metrics in self.evaluation.labels.items()
        }
        drawn = self.settings.bootstrap
        return figures | {
            "patients": self.patients,
            "mean": {
                "auroc": self.evaluation.mean_auroc,
                "auprc": self.evaluation.mean_auprc,
                "intervals": _plain(self.intervals["mean"]),
            },
            "labels": labels,
            "bootstrap": {
                "unit": "patient",
                "draws": drawn.draws,
                "seed": drawn.seed,
                "confidence": drawn.confidence,
                "method": "percentile",
            },
            "subgroups": [item.to_dict() for item in self.subgroups],
            "gaps": [item.to_dict() for item in self.gaps],
            "warnings": list(self.warnings),
        }


def _plain(intervals: Mapping[str, Interval]) -> dict[str, object]:
    return {name: interval.to_dict() for name, interval in intervals.items()}


def assess(
    table: PredictionTable,
    settings: AssessmentSettings,
    thresholds: Mapping[str, float] | None = None,
    origin: ThresholdOrigin | None = None,
    scalings: Mapping[str, Scaling] | None = None,
    calibration_origin: CalibrationOrigin | None = None,
    notes: Sequence[str] = (),
) -> Assessment:
    """Compute figures, intervals, calibration, operating points and subgroups of a table.

    Args:
        table: raw probabilities and labels.
        settings: options.
        thresholds: by finding, for raw probabilities.
        origin: how the thresholds were chosen.
        scalings: the bundle's calibration, by finding.
        calibration_origin: where the calibration was fitted.
        notes: further warnings, which come first.
    """
    if not table.are_probabilities:
        thresholds = scalings = None
    evaluation = evaluate(table, thresholds)
    honest = None
    patients = len(set(table.patients))
    warnings = [*notes, *evaluation.warnings, *few_patients_warnings(table.split, patients)]
    if thresholds is not None and origin is not None and origin.chosen_on(table):
        honest = honest_rates(table, origin.search, settings.bootstrap, seed=settings.bootstrap.seed)
        warnings.append(
            f"the thresholds were chosen on this same split ({table.split}), so figures at thresholds are too good; "
            "'honest' holds rates at thresholds chosen without the rows they count (nested resampling)"
        )
    elif origin is not None and origin.split == "test":
        warnings.append("the thresholds were chosen on a test split, so figures on that split are too good")
    fitted_here = calibration_origin is not None and calibration_origin.fitted_on(table)
    changed = frozenset(finding for finding, one in (scalings or {}).items() if one != UNSCALED)
    in_sample = changed if fitted_here else frozenset()
    if in_sample:
        warnings.append(
            f"the calibration was fitted on this same split ({table.split}), so figures of calibrated probabilities "
            "are too good; those of raw probabilities are not affected"
        )
    elif calibration_origin is not None and calibration_origin.split == "test":
        warnings.append("the calibration was fitted on a test split, so calibrated figures on that split are too good")
    subgroups = subgroup_figures(table, settings.by, settings.bootstrap.confidence, thresholds)
    grouped = (*capped_group_warnings(table, settings.by), *small_group_warnings(subgroups))
    warnings += [f"subgroups by {text}" for text in grouped]
    return Assessment(
        evaluation=evaluation,
        settings=settings,
        patients=patients,
        intervals=_intervals(table, settings.bootstrap, thresholds),
        raw=calibration_figures(table, None, settings.bootstrap) if table.are_probabilities else None,
        calibrated=None if scalings is None else calibration_figures(table, scalings, settings.bootstrap),
        calibrated_in_sample=in_sample,
        operating=operating_points(table, thresholds, settings.prevalence, settings.bootstrap.confidence),
        decision_curves=decision_curves(table, scalings) if table.are_probabilities else None,
        honest=honest,
        subgroups=subgroups,
        gaps=group_gaps(table, settings.by, settings.bootstrap, thresholds),
        warnings=tuple(warnings),
    )


def _intervals(
    table: PredictionTable, settings: BootstrapSettings, thresholds: Mapping[str, float] | None
) -> dict[str, dict[str, Interval]]:
    (draws,) = bootstrap_areas([table], settings)
    level = settings.confidence
    names, patients = number_patients(table.patients)
    found: dict[str, dict[str, Interval]] = {}
    for column, finding in enumerate(table.findings):
        counts = table.mask[:, column]
        targets, scores, group = table.targets[counts, column], table.scores[counts, column], patients[counts]
        found[finding] = {
            "auroc": auroc_interval(targets, scores, group, draws[finding]["auroc"], level),
            "auprc": auprc_interval(targets, scores, group, draws[finding]["auprc"], level),
            "auroc_delong": delong(targets, scores, level).interval
            if len(names) > 1
            else Interval(None, None, reason=ONE_PATIENT),
        }
        if thresholds is not None:
            called = scores >= thresholds[finding]
            found[finding] |= threshold_intervals(targets > 0.5, called, group, level)
    return found | {"mean": {name: _mean_interval(values, len(names), level) for name, values in draws["mean"].items()}}


FEW_DRAWS = "fewer than half of the draws define all findings"


def _mean_interval(draws: Draws, patients: int, confidence: float) -> Interval:
    found = percentile_interval(draws, confidence)
    if patients == 1:
        return replace(found, reason=ONE_PATIENT)
    # The draws that define all findings are then too much alike to show any variation.
    if 2 * found.undefined_draws > len(draws):
        return Interval(None, None, found.undefined_draws, FEW_DRAWS)
    return found


def attribute_names(text: str) -> tuple[str, ...]:
    """Return the names in a list such as ``sex,age``."""
    return tuple(part.strip() for part in text.split(",") if part.strip())
