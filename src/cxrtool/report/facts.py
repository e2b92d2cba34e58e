"""What the tool knows about a study, by subject, in the words of a checklist's answers."""

from collections.abc import Mapping

from cxrtool.cells import interval_text
from cxrtool.choices import Blank
from cxrtool.model.header import BundleHeader, current_versions
from cxrtool.report.population import describe_flow, ordered
from cxrtool.report.study import Study


def facts_of(study: Study) -> dict[str, str]:
    """Return answers to items of checklists, by subject; a subject of which nothing is known is missing."""
    found = _of_evaluation(study) | _of_rows(study)
    if study.header is not None:
        found |= _of_model(study.header) | {
            "thresholds": _thresholds(study.header, study),
            "disjoint": _disjoint(study),
        }
    return {subject: text for subject, text in found.items() if text}


def _of_evaluation(study: Study) -> dict[str, str]:
    assessment, table = study.assessment, study.table
    evaluation, drawn = assessment.evaluation, assessment.settings.bootstrap
    thresholds = any(row.at_threshold is not None for row in evaluation.labels.values())
    mean = interval_text(evaluation.mean_auroc, assessment.intervals["mean"].get("auroc"), 3)
    events = ", ".join(
        f"{name} {row.positives} of {row.positives + row.negatives}" for name, row in evaluation.labels.items()
    )
    names = ", ".join(dict.fromkeys(item.attribute for item in assessment.subgroups))
    looked = "" if study.looks is None else f" {study.looks.sentence()}"
    return {
        "measures": "AUROC, AUPRC"
        + (", sensitivity, specificity, PPV, F1, balanced accuracy at thresholds" if thresholds else "")
        + ("; Brier score, calibration error, reliability diagram, net benefit" if table.are_probabilities else "")
        + "; see the methods paragraph.",
        "uncertainty": f"{100 * drawn.confidence:g} % intervals; {drawn.draws:,} draws of patients, seed {drawn.seed}; "
        "methods are named with each interval.",
        "indeterminate": "Every row analysed has a score. Uncertain labels "
        f"({sum(row.ignored for row in evaluation.labels.values()):,} cells) were left out, finding by finding.",
        "subgroups": f"Figures by {names}; whether these were planned: not stated." if names else "",
        "cross": "2 x 2 counts for each finding: table_counts." if thresholds else "",
        "estimates": f"Mean AUROC {mean}; by finding with intervals: table_areas"
        + (", table_rates" if thresholds else "")
        + (", table_subgroups." if names else "."),
        "rates": "Sensitivity, specificity and PPV with intervals: table_rates." if thresholds else "",
        "events": f"Positives among labels that count: {events}.",
        "split": f"The {evaluation.split} split: {evaluation.studies:,} studies of {assessment.patients:,} patients."
        f"{looked}",
        "software": f"cxrtool {current_versions()['cxrtool']}, torch {current_versions()['torch']}; "
        f"command: {study.command or 'not stated'}.",
    }


def _of_rows(study: Study) -> dict[str, str]:
    split = study.table.split
    flow = study.flows.get(split)
    blank = {None: "", Blank.NEGATIVE: " Blank labels: negative.", Blank.IGNORE: " Blank labels: left out."}[
        study.blank
    ]
    many = ", ".join(ordered(study.characteristics))
    views = f"{study.views} views of the sheet's rows that have a readable image" if study.views else ""
    return {
        "flow": f"{describe_flow({split: flow})}. Diagram: flow." if flow else "",
        "missing": f"Left out: {flow.missing:,} rows without an image, {flow.unreadable:,} unreadable.{blank}"
        if flow
        else blank.strip(),
        "eligibility": f"Here: {views}. Criteria by which the sheet was made: not stated." if views else "",
        "characteristics": f"By split ({many}): table_characteristics." if many else "",
        "compared": f"Splits side by side ({many}): table_characteristics." if len(study.characteristics) > 1 else "",
        "reference": f"Labels of the sheet (SHA-256 {study.table.sheet_sha256[:12]}); who gave them: not stated."
        if study.table.sheet_sha256
        else "",
    }


def _of_model(header: BundleHeader) -> dict[str, str]:
    training = header.training
    sheets = "; ".join(
        f"{split}: {one.sheet}, {one.images:,} images, {one.patients:,} patients (SHA-256 {one.sheet_sha256[:12]})"
        for split, one in header.data.items()
    )
    size = header.image_preprocessing.image_size
    weighted = header.pos_weight is not None
    maps = ", ".join(one.method for one in header.localization)
    return {
        "model": f"DenseNet121 at {size} x {size} pixels, findings {', '.join(header.findings)}; weights SHA-256 "
        f"{header.weights_sha256[:12]}.",
        "bundle": f"One bundle file holds weights, preprocessing, thresholds and calibration (weights SHA-256 "
        f"{header.weights_sha256[:12]}); restrictions to access: not stated.",
        "preprocessing": f"Decoding to 8-bit grey and antialiased resizing to {size} x {size} pixels, the same for "
        "every patient; normalisation inside the network.",
        "sheets": f"{sheets}. Origin of the sheets: not stated." if sheets else "",
        "partitions": f"By the sheets: {sheets}. How patients were assigned to them: not stated." if sheets else "",
        "blinding": "The model reads pixels only: it is given neither clinical information nor labels.",
        "failures": "cxr errors and cxr report list the most confident false positives and false negatives, with "
        "heatmaps; their discussion: not stated.",
        "input": "An image that cannot be decoded is refused with its reason.",
        "predictors": "Pixels of the radiograph only.",
        "no_readers": "Not applicable: no person assesses the predictors.",
        "init": _told(training, "init", "Initial weights: {}."),
        "training": _training(training, header.policy),
        "selection": _told(training, "select_by", "Best epoch on valid by {}") + _epoch(header),
        "ensemble": "None: one network.",
        "imbalance": "Loss of positives weighted by negatives / positives of each finding, clipped at "
        f"{training.get('pos_weight_clip', 'a limit')}." + (" Recalibrated afterwards." if header.calibration else "")
        if weighted
        else "None used.",
        "calibration": ""
        if header.calibration is None
        else f"{header.calibration.method.value.capitalize()} scaling of each finding, fitted on "
        f"{header.calibration.split} ({header.calibration.rows:,} rows).",
        "maps": f"Heatmaps ({maps}), measured against true regions." if maps else "",
    }


def _disjoint(study: Study) -> str:
    if study.i_know is None:
        return "Patient: sheets that share one are refused unless --i-know is given; whether it was: not stated."
    return (
        "--i-know was given: whether splits share patients: not stated."
        if study.i_know
        else "Patient: none is in two splits."
    )


def _thresholds(header: BundleHeader, study: Study) -> str:
    tuning = header.tuning
    if tuning is None:
        return "Thresholds: 0.5 for each finding, not chosen." if header.thresholds is None else ""
    same = (tuning.split, tuning.sheet_sha256) == (study.table.split, study.table.sheet_sha256)
    return (
        f"Probabilities; positive at or above a threshold chosen by {tuning.criterion} on the {tuning.split} split "
        f"({tuning.rows:,} rows), {'the same as' if same else 'before and apart from'} that of these figures."
    )


def _training(training: Mapping[str, object], policy: str) -> str:
    names = ("optimizer", "lr", "weight_decay", "batch_size", "epochs", "augment", "seed")
    given = ", ".join(f"{name} {training[name]}" for name in names if name in training)
    return f"{given}; uncertain labels: {policy}." if given else ""


def _epoch(header: BundleHeader) -> str:
    epoch = header.metrics.get("epoch")
    return f": epoch {epoch}." if isinstance(epoch, int) else ""


def _told(training: Mapping[str, object], name: str, sentence: str) -> str:
    return sentence.format(training[name]) if name in training else ""
