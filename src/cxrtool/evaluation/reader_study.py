"""The comparison of a model with readers, finding by finding."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cxrtool.choices import Level
from cxrtool.errors import RequestError
from cxrtool.evaluation.intervals import ONE_PATIENT, BootstrapSettings, Draws, Interval, PatientDraws, number_patients
from cxrtool.evaluation.metrics import auroc, confusion, or_none
from cxrtool.evaluation.multi_reader import against_readers, jackknife_covariance, jackknifed_areas
from cxrtool.evaluation.rates import rate_interval
from cxrtool.evaluation.reader_points import PairedPoint, PairedRows
from cxrtool.evaluation.readers import (
    AREA,
    METHOD,
    SENSITIVITY,
    AverageReader,
    ReaderFigures,
    ReaderStudy,
    Readings,
    majority_vote,
)
from cxrtool.evaluation.table import PredictionTable


def check_level(level: Level) -> None:
    """Check that rows are studies, which is what readers read.

    Raises:
        RequestError: rows are images.
    """
    if level is not Level.STUDY:
        raise RequestError("readers read studies, but the figures are of images", "Leave out --level image.")


def study_readers(
    table: PredictionTable, readings: Sequence[Readings], settings: BootstrapSettings, notes: Sequence[str] = ()
) -> ReaderStudy:
    """Compare a model with readers, finding by finding.

    Args:
        table: the model's scores and the labels, one row per study.
        readings: what each reader says, in the table's rows and columns.
        settings: how patients are drawn.
        notes: what reading the files left out or assumed.

    Raises:
        RequestError: rows are images.
    """
    check_level(table.level)
    draws = PatientDraws(table.patients, settings)
    _, patients = number_patients(table.patients)
    rows: list[ReaderFigures] = []
    averages: list[AverageReader] = []
    for column, finding in enumerate(table.findings):
        compared = [_compare(table, column, one, patients, draws) for one in readings]
        rows += [figures for figures, _ in compared]
        if len(readings) == 1:
            continue
        rows.append(_compare(table, column, majority_vote(readings), patients, draws)[0])
        known = [n for n, (figures, _) in enumerate(compared) if figures.difference is not None]
        averages.append(_average_sensitivity(finding, [compared[n] for n in known], settings))
        averages.append(_average_area(table, column, [readings[n] for n in known], patients, settings))
    return ReaderStudy(tuple(one.name for one in readings), tuple(rows), tuple(averages), settings, tuple(notes))


def _compare(
    table: PredictionTable, column: int, reader: Readings, patients: NDArray[np.int64], draws: PatientDraws
) -> tuple[ReaderFigures, PairedPoint]:
    labelled = table.mask[:, column]
    rows = np.flatnonzero(labelled & reader.mask[:, column])
    positive, called, group = table.targets[rows, column] > 0.5, reader.positive[rows, column], patients[rows]
    counts = confusion(positive, called, 0.5)
    point = PairedRows(positive, table.scores[rows, column], called, rows, group).compare(draws)

    def rate(outcomes: NDArray[np.bool_], among: NDArray[np.bool_]) -> Interval:
        if len(np.unique(patients)) == 1:
            return Interval(None, None, reason=ONE_PATIENT)
        return rate_interval(outcomes[among], group[among], draws.settings.confidence)

    return ReaderFigures(
        reader=reader.name,
        finding=table.findings.names[column],
        positives=int(positive.sum()),
        negatives=int((~positive).sum()),
        not_read=int(labelled.sum()) - len(rows),
        sensitivity=or_none(counts.recall),
        specificity=or_none(counts.specificity),
        precision=or_none(counts.precision),
        model_sensitivity=or_none(point.model_sensitivity),
        difference=or_none(point.difference),
        intervals={
            "sensitivity": rate(called, positive),
            "specificity": rate(~called, ~positive),
            "precision": rate(positive, called),
            "difference": point.interval,
        },
    ), point


def _average_sensitivity(
    finding: str, compared: Sequence[tuple[ReaderFigures, PairedPoint]], settings: BootstrapSettings
) -> AverageReader:
    if not compared:
        return _average(finding, SENSITIVITY, np.nan, np.zeros(0), np.zeros((0, 0)), 0, settings)
    points = [point for _, point in compared]
    drawn = np.stack([point.draws for point in points], axis=1)
    values = np.array([point.difference for point in points])
    model = float(np.mean([point.model_sensitivity for point in points]))
    studies = min(row.positives + row.negatives for row, _ in compared)
    return _average(finding, SENSITIVITY, model, values, _covariance(drawn), studies, settings)


def _covariance(drawn: Draws) -> Draws:
    """Return the covariance of figures [R, R] over the draws that define all of them, [B, R]."""
    defined = drawn[~np.isnan(drawn).any(axis=1)]
    if len(defined) < 2:
        return np.full((drawn.shape[1], drawn.shape[1]), np.nan)
    return np.atleast_2d(np.cov(defined, rowvar=False))


def _average_area(
    table: PredictionTable,
    column: int,
    readings: Sequence[Readings],
    patients: NDArray[np.int64],
    settings: BootstrapSettings,
) -> AverageReader:
    finding = table.findings.names[column]
    if not readings:
        return _average(finding, AREA, np.nan, np.zeros(0), np.zeros((0, 0)), 0, settings)
    rows = np.flatnonzero(table.mask[:, column] & np.all([one.mask[:, column] for one in readings], axis=0))
    targets, group = table.targets[rows, column], patients[rows]
    raters = np.stack([table.scores[rows, column], *(one.positive[rows, column] for one in readings)])
    areas = np.array([auroc(targets, one) for one in raters])
    if np.isnan(areas).any() or len(np.unique(group)) < 2:
        covariance = np.full((len(readings), len(readings)), np.nan)
    else:
        left_out = jackknifed_areas(targets, raters, group)
        covariance = jackknife_covariance(left_out[:, :1] - left_out[:, 1:])
    return _average(finding, AREA, float(areas[0]), areas[0] - areas[1:], covariance, len(rows), settings)


def _average(
    finding: str,
    figure: str,
    model: float,
    differences: Draws,
    covariance: Draws,
    studies: int,
    settings: BootstrapSettings,
) -> AverageReader:
    analysis = against_readers(differences, covariance)
    return AverageReader(
        finding=finding,
        figure=figure,
        model=or_none(model),
        readers=or_none(model - analysis.estimate.value),
        studies=studies,
        analysis=analysis,
        interval=analysis.estimate.interval(settings.confidence, METHOD),
    )
