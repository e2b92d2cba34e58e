"""Evaluation, choice of thresholds and mistakes of scores that another program wrote: no model, no images."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from cxrtool.choices import Level, MistakeKind
from cxrtool.errors import RequestError
from cxrtool.evaluation.assessment import Assessment, AssessmentSettings, assess, attribute_names
from cxrtool.evaluation.mistakes import Mistake, find_mistakes
from cxrtool.evaluation.readers import ReaderStudy
from cxrtool.evaluation.scores import JoinedScores, JoinSettings, join_scores
from cxrtool.evaluation.table import PredictionTable, to_study_level, write_predictions
from cxrtool.evaluation.threshold_files import parse_thresholds
from cxrtool.files import write_csv, write_json
from cxrtool.settings import Settings
from cxrtool.tasks.evaluate import bootstrap_settings, compare_with_readers, readers_of, write_figures

UNTUNED = 0.5


@dataclass(frozen=True)
class ScoreFiles:
    """Files of scores and labels, and how they are joined.

    Attributes:
        scores: table of scores.
        truth: table of labels.
        key: column that identifies rows; None finds it.
        renames: new name of a column by its name.
    """

    scores: Path
    truth: Path
    key: str | None = None
    renames: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ScoresResult:
    """Result of `evaluate_scores`.

    Attributes:
        assessment: figures with intervals and warnings.
        table: scores and labels, at the level that was asked for.
        folder: folder with predictions.csv, metrics.json, metrics.csv, subgroups.csv and gaps.csv.
        files: the files that they come from.
        readers: the scores beside readers; None without readers.
    """

    assessment: Assessment
    table: PredictionTable
    folder: Path
    files: ScoreFiles
    readers: ReaderStudy | None = None

    def to_dict(self) -> dict[str, object]:
        """Return the document of ``cxr eval --scores --json`` and of metrics.json."""
        return self.assessment.to_dict() | {
            "scores": {"path": str(self.files.scores), "sha256": self.table.model_sha256},
            "truth": {"path": str(self.files.truth), "sha256": self.table.sheet_sha256},
            "are_probabilities": self.table.are_probabilities,
            "model": None,
            "readers": None if self.readers is None else self.readers.to_dict(),
        }


def joined(files: Sequence[ScoreFiles], settings: Settings, split: str) -> list[JoinedScores]:
    """Read files of scores with the same labels; see `join_scores`."""
    first = files[0]
    options = JoinSettings(first.key, first.renames, split, settings.data.blank, attribute_names(settings.eval.by))
    return join_scores([one.scores for one in files], first.truth, options)


def evaluate_scores(
    files: ScoreFiles,
    settings: Settings,
    out: Path | None = None,
    thresholds: str | None = None,
    readers: Sequence[Path] = (),
) -> ScoresResult:
    """Evaluate scores against labels and write figures as ``cxr eval`` does.

    Args:
        files: scores and labels.
        settings: split, level, subgroups, draws and the meaning of blank labels.
        out: output folder; None uses ``eval_<split>`` beside the scores.
        thresholds: text or a file as in `parse_thresholds`, for figures at thresholds; None leaves these out.
        readers: files of readers to compare the scores with; see `read_readers`.

    Raises:
        RequestError: the files cannot be joined; see `join_scores`.
        WriteError: a file cannot be written.
    """
    options = settings.eval
    (found,) = joined([files], settings, options.split)
    table = to_study_level(found.table) if options.level is Level.STUDY else found.table
    known = None if thresholds is None else _thresholds(table, thresholds)
    how = AssessmentSettings(bootstrap_settings(options), attribute_names(options.by), options.prevalence)
    assessment = assess(table, how, known, notes=found.notes)
    read = readers_of(readers, options.level, table.findings)
    study = compare_with_readers(table, read, options) if read else None
    result = ScoresResult(assessment, table, out or files.scores.parent / f"eval_{table.split}", files, study)
    write_predictions(result.folder / "predictions.csv", table)
    write_json(result.folder / "metrics.json", result.to_dict())
    write_figures(result.folder, assessment, study)
    return result


def _thresholds(table: PredictionTable, text: str | None) -> dict[str, float]:
    given = {} if text is None else parse_thresholds(text, table.findings)
    return dict.fromkeys(table.findings, UNTUNED) | given


def mistakes_in_scores(
    files: ScoreFiles,
    settings: Settings,
    thresholds: str | None = None,
    kind: MistakeKind = MistakeKind.BOTH,
    finding: str | None = None,
    top: int = 8,
    out: Path | None = None,
) -> tuple[tuple[Mistake, ...], Path]:
    """List the most confident mistakes of scores as mistakes.csv and mistakes.json, without pictures.

    Args:
        files: scores and labels.
        settings: split and the meaning of blank labels.
        thresholds: text or a file as in `parse_thresholds`; 0.5 for findings that it does not name.
        kind: false positives, false negatives or both.
        finding: name of the only finding to list, as the files write it; None lists all.
        top: most mistakes to list per finding and kind.
        out: output folder; None uses ``errors_<split>`` beside the scores.

    Returns:
        The mistakes, and the folder.

    Raises:
        RequestError: the files cannot be joined, the scores are not probabilities, or the finding is not in them.
    """
    (found,) = joined([files], settings, settings.eval.split)
    if not found.table.are_probabilities:
        raise RequestError(f"{files.scores} holds scores that are not probabilities", "Mistakes need a threshold.")
    name = None if finding is None else found.table.findings.find(finding)
    known = _thresholds(found.table, thresholds)
    mistakes = find_mistakes(found.table, known, kind, name, top)
    folder = out or files.scores.parent / f"errors_{found.table.split}"
    rows = [asdict(one) for one in mistakes]
    header = list(Mistake.__dataclass_fields__)
    write_csv(folder / "mistakes.csv", header, [list(row.values()) for row in rows])
    write_json(folder / "mistakes.json", {"mistakes": rows})
    return mistakes, folder
