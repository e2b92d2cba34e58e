"""The methods paragraphs of a paper: data, model, statistics, software and command, with numbered sources."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from cxrtool.choices import Blank, CalibrationMethod, Criterion, Level
from cxrtool.data.characteristics import Characteristics
from cxrtool.evaluation.assessment import Assessment
from cxrtool.evaluation.comparison import Comparison
from cxrtool.evaluation.intervals import BootstrapSettings
from cxrtool.model.header import BundleHeader, current_versions
from cxrtool.report.population import describe_left_out
from cxrtool.report.references import INTERVALS, Citations
from cxrtool.report.study import Study

_FIGURES = {
    "auroc": "AUROC",
    "auroc_delong": "AUROC (DeLong)",
    "auprc": "AUPRC",
    "recall": "sensitivity",
    "specificity": "specificity",
    "precision": "PPV",
    "npv": "NPV",
    "f1": "F1",
    "balanced_accuracy": "balanced accuracy",
}
_AIMS = {
    Criterion.F1: "maximise F1",
    Criterion.BALANCED_ACCURACY: "maximise balanced accuracy",
    Criterion.YOUDEN: "maximise Youden's index",
    Criterion.RECALL: "reach a sensitivity of at least {}",
    Criterion.SPECIFICITY: "reach a specificity of at least {}",
}


@dataclass(frozen=True)
class Methods:
    """Paragraphs, with numbers of sources in brackets, and these sources."""

    paragraphs: Sequence[str]
    references: Sequence[str]

    def to_markdown(self) -> str:
        """Return a Markdown document."""
        lines = ["# Methods", ""]
        for text in self.paragraphs:
            lines += [text, ""]
        lines += ["## References", "", *(f"{number}. {text}" for number, text in enumerate(self.references, 1)), ""]
        return "\n".join(lines)


def methods_of(study: Study) -> Methods:
    """Return the methods of an evaluation, with exact numbers; what is not known is not mentioned."""
    cite = Citations()
    paragraphs = [
        " ".join(part)
        for part in (
            _data(study),
            _model(study.header, study.characteristics, cite) if study.header else (),
            _statistics(study, cite),
            _software(study.header, study.engine, study.command),
        )
    ]
    return Methods([text for text in paragraphs if text], cite.cited)


def _data(study: Study) -> Iterator[str]:
    table, evaluation = study.table, study.assessment.evaluation
    sheet = f" (sheet SHA-256 {table.sheet_sha256[:12]})" if table.sheet_sha256 else ""
    yield (
        f"Data. The {evaluation.split} split{sheet} was analysed: {evaluation.images:,} images of "
        f"{evaluation.studies:,} studies of {study.assessment.patients:,} patients."
    )
    if evaluation.split in study.flows:
        flow = study.flows[evaluation.split]
        yield f"Of the {flow.rows:,} rows of its sheet, {describe_left_out(flow)}."
    if study.views is not None:
        yield f"Views: {study.views}."
    yield (
        "The unit of analysis was the study; the score of a study is the largest over its images."
        if table.level is Level.STUDY
        else "The unit of analysis was the image."
    )
    yield "Labels that are uncertain in the sheet were left out, finding by finding."
    if study.blank is not None:
        yield f"Blank labels were {'taken as negative' if study.blank is Blank.NEGATIVE else 'left out'}."
    if study.looks is not None:
        yield study.looks.sentence()


def _model(header: BundleHeader, found: Mapping[str, Characteristics], cite: Citations) -> Iterator[str]:
    preprocessing = header.image_preprocessing
    yield (
        f"Model. A DenseNet121{cite('huang')} with one output for each of {len(header.findings)} findings "
        f"({', '.join(header.findings)}) read radiographs resized to {preprocessing.image_size} x "
        f"{preprocessing.image_size} pixels (weights SHA-256 {header.weights_sha256[:12]})."
    )
    for split, role in (("train", "trained"), ("valid", "selected")):
        digest = header.data.get(split)
        if digest is not None:
            read = found.get(split, digest)  # the header counts unreadable images too
            yield (
                f"It was {role} on {digest.sheet} (SHA-256 {digest.sheet_sha256[:12]}): {read.images:,} images of "
                f"{read.studies:,} studies of {read.patients:,} patients."
            )
    if header.policy:
        blank = "negative" if header.blank is Blank.NEGATIVE else "ignored"
        yield (
            f"In training, uncertain labels were treated by the policy {header.policy}{cite('irvin')} and blank ones "
            f"were {blank}."
        )
    tuning, calibration = header.tuning, header.calibration
    if tuning is None:
        yield "No thresholds were chosen; 0.5 stands for each finding." if header.thresholds is None else ""
    else:
        aim = _AIMS[tuning.criterion].format("" if tuning.target is None else f"{tuning.target:g}")
        yield (
            f"Thresholds on uncalibrated probabilities were chosen for each finding on the {tuning.split} split "
            f"({tuning.rows:,} {_rows(tuning.level)}, sheet SHA-256 {tuning.sheet_sha256[:12]}) to {aim}, "
            f"on a grid from {tuning.minimum:g} to {tuning.maximum:g} in steps of {tuning.step:g}."
        )
    if calibration is not None:
        name, source = ("Platt", "platt") if calibration.method is CalibrationMethod.PLATT else ("temperature", "guo")
        yield (
            f"Probabilities were calibrated by {name} scaling{cite(source)} for each finding, fitted on the "
            f"{calibration.split} split ({calibration.rows:,} {_rows(calibration.level)})."
        )


def _rows(level: str) -> str:
    return "studies" if level == Level.STUDY.value else "images"


def _statistics(study: Study, cite: Citations) -> Iterator[str]:
    assessment = study.assessment
    yield (
        f"Statistics. Discrimination was measured by the area under the ROC curve (AUROC){cite('hanley')} and the "
        "average precision (AUPRC), and their means over the findings that define them."
    )
    if any(row.at_threshold is not None for row in assessment.evaluation.labels.values()):
        yield (
            "At the thresholds, sensitivity, specificity, positive predictive value (PPV), F1 and balanced accuracy "
            "were computed."
        )
    yield from interval_sentences(assessment, cite)
    if study.table.are_probabilities:
        yield (
            f"Calibration was described by the Brier score{cite('brier')}, the expected calibration error over ten "
            f"bins of equal width and reliability diagrams, clinical utility by net benefit{cite('vickers')}."
        )
    if any(one.predictive_values is not None for one in assessment.operating.values()):
        given = assessment.settings.prevalence
        share = "that of each finding in the split" if given is None else f"{given:g}"
        yield f"Predictive values at a prevalence, {share}, follow from Bayes' rule{cite('altman')}."
    if assessment.honest is not None:
        yield (
            "Because the thresholds were chosen on the same split, rates were also estimated by nested resampling: "
            "each patient was judged by thresholds chosen on others (5 folds of patients, 20 repeats)."
        )
    if assessment.subgroups:
        names = ", ".join(dict.fromkeys(item.attribute for item in assessment.subgroups))
        yield f"Subgroups were formed by {names}; no correction for multiple comparisons was made."
    yield "No hypothesis was tested."


def interval_sentences(assessment: Assessment, cite: Citations) -> Iterator[str]:
    """Say by which method each figure's intervals were computed, and how patients were drawn."""
    drawn = assessment.settings.bootstrap
    figures: dict[str, list[str]] = {}
    for rows in assessment.intervals.values():
        for name, interval in rows.items():
            if interval.low is not None:
                method = interval.method or ("delong" if name.endswith("_delong") else "")
                names = figures.setdefault(method, [])
                names += [] if name in names else [name]
    for method, names in figures.items():
        known = next((value for word, value in INTERVALS.items() if word in method.lower()), None)
        shown = ", ".join(_FIGURES.get(name, name.replace("_", " ")) for name in names)
        how = (known[0] if known else f"the method {method}") if method else "a method that is not named"
        source = cite(known[1]) if known else ""
        yield f"Intervals ({100 * drawn.confidence:g} %) of {shown} were computed by {how}{source}."
    yield drawing_sentence(drawn)


def drawing_sentence(drawn: BootstrapSettings) -> str:
    """Say how patients were drawn."""
    return (
        f"For the bootstrap, patients, not images, were drawn with replacement {drawn.draws:,} times (seed "
        f"{drawn.seed}); draws in which a figure is undefined do not count for it."
    )


def _software(header: BundleHeader | None, engine: str | None, command: str) -> Iterator[str]:
    versions = ", ".join(f"{name} {number}" for name, number in current_versions().items())
    yield f"Software. Figures were computed with {versions}."
    if header is not None and header.versions:
        trained = ", ".join(
            f"{name} {header.versions[name]}" for name in ("cxrtool", "torch") if name in header.versions
        )
        yield f"The model was trained with {trained}."
    if engine is not None:
        yield f"The network was run by {engine}."
    if command:
        yield f"Command: `{command}`"


def methods_of_comparison(comparison: Comparison, settings: BootstrapSettings, command: str = "") -> Methods:
    """Return the methods of a comparison of models."""
    cite = Citations()
    names = list(comparison.figures)
    seeds = any(one.seed_deviation is not None for rows in comparison.figures.values() for one in rows["mean"].values())
    paragraphs = [
        f"Comparison. {len(names)} models ({', '.join(names)}) were compared on the same "
        f"{comparison.studies:,} studies of {comparison.patients:,} patients of the {comparison.split} split, at "
        f"{comparison.level} level, by AUROC{cite('hanley')} and average precision (AUPRC) of each finding and their "
        "means." + (" Figures of a model are means over its training runs with different seeds." if seeds else ""),
        "Differences are paired: all models were evaluated on the same draws of patients. "
        f"{drawing_sentence(settings)} "
        f"Intervals ({100 * settings.confidence:g} %) are percentiles of the draws{cite('efron')}. Two-sided p-values "
        f"are twice the smaller share of draws at or beyond zero, with one added to both counts{cite('davison')}; "
        f"they were corrected by Holm's method{cite('holm')}, separately for each figure, over pairs for means and "
        "over pairs and findings for findings.",
        " ".join(_software(None, None, command)),
    ]
    return Methods(paragraphs, cite.cited)
