"""Multi-reader analysis against the results that MRMCaov and OR-DBM MRMC print for the ratings of Van Dyke et al."""

import numpy as np
import pytest

from cxrtool.evaluation.metrics import auroc
from cxrtool.evaluation.multi_reader import (
    against_readers,
    compare_modalities,
    jackknife_covariance,
    jackknifed_areas,
)
from van_dyke import DISSECTION, RATINGS

AREAS = np.array([[auroc(DISSECTION, ratings) for ratings in modality] for modality in RATINGS])
PATIENTS = np.arange(len(DISSECTION))


def covariance_of(ratings: np.ndarray) -> np.ndarray:
    return jackknife_covariance(jackknifed_areas(DISSECTION, ratings, PATIENTS))


def test_areas_are_those_of_or_dbm_mrmc() -> None:
    assert AREAS[0] == pytest.approx([0.91964573, 0.85877617, 0.90386473, 0.97310789, 0.82979066], abs=5e-9)


def test_variances_of_single_readers_are_those_of_or_dbm_mrmc() -> None:
    variances = np.diag(covariance_of(RATINGS[0]))
    assert variances == pytest.approx([0.00090755, 0.00132316, 0.00079859, 0.00030064, 0.00174057], abs=5e-9)


@pytest.mark.parametrize(
    ("modality", "mean_square", "shared", "error", "freedom", "low", "high"),
    [
        (0, 0.003082629, 0.0004839618, 0.03317360, 12.74465, 0.8252236, 0.9688505),
        (1, 0.001304602, 0.0002041879, 0.02156637, 12.71019, 0.8941378, 0.9875369),
    ],
)
def test_one_modality_is_that_of_mrmcaov(
    modality: int, mean_square: float, shared: float, error: float, freedom: float, low: float, high: float
) -> None:
    """Against a model that is always right, the differences are 1 - AUROC, whose variance is that of the AUROC."""
    found = against_readers(1 - AREAS[modality], covariance_of(RATINGS[modality]))
    assert found.mean_square == pytest.approx(mean_square, rel=2e-7)
    assert found.covariance == pytest.approx(shared, abs=6e-11)
    assert found.estimate.standard_error == pytest.approx(error, rel=2e-6)
    assert found.estimate.degrees_of_freedom == pytest.approx(freedom, rel=1e-6)
    interval = found.estimate.interval(0.95, "obuchowski-rockette")
    assert interval.low is not None
    assert interval.high is not None
    assert 1 - interval.high == pytest.approx(low, abs=1e-7)
    assert 1 - interval.low == pytest.approx(high, abs=1e-7)


def test_two_modalities_are_those_of_mrmcaov() -> None:
    found = compare_modalities(AREAS, covariance_of(RATINGS.reshape(10, -1)))
    assert found.covariances == pytest.approx([0.0003466137, 0.0003440748, 0.0002390284], abs=5e-11)
    assert found.f == pytest.approx(4.456319, abs=5e-7)
    assert found.degrees_of_freedom == pytest.approx([1, 15.25967], abs=5e-6)
    assert found.p_value == pytest.approx(0.05166569, abs=5e-9)
    difference = found.differences[0, 1]
    assert difference.value == pytest.approx(-0.04380032, abs=5e-9)
    assert difference.standard_error == pytest.approx(0.02074862, abs=5e-9)
    assert difference.p_value == pytest.approx(0.05166569, abs=5e-9)
    interval = difference.interval(0.95, "obuchowski-rockette")
    assert [interval.low, interval.high] == pytest.approx([-0.0879594986, 0.0003588544], abs=5e-9)


def test_a_model_repeated_for_each_reader_is_a_modality() -> None:
    """Kooi et al. 2016: with the model's ratings as each reader's first modality, both designs give one result."""
    model = RATINGS[0].mean(axis=0)
    areas = np.stack([np.full(5, auroc(DISSECTION, model)), AREAS[1]])
    both = compare_modalities(areas, covariance_of(np.concatenate([np.tile(model, (5, 1)), RATINGS[1]])))
    values = jackknifed_areas(DISSECTION, np.concatenate([model[None], RATINGS[1]]), PATIENTS)
    alone = against_readers(areas[0] - areas[1], jackknife_covariance(values[:, :1] - values[:, 1:]))
    assert alone.estimate.value == pytest.approx(both.differences[0, 1].value)
    assert alone.estimate.standard_error == pytest.approx(both.differences[0, 1].standard_error)
    assert alone.estimate.degrees_of_freedom == pytest.approx(both.differences[0, 1].degrees_of_freedom)
    assert alone.estimate.p_value == pytest.approx(both.p_value)


def test_the_jackknife_leaves_out_patients_with_several_studies() -> None:
    rng = np.random.default_rng(3)
    targets, scores = rng.integers(0, 2, 30), rng.integers(0, 4, (2, 30))
    patients = rng.integers(0, 8, 30)
    expected = [[auroc(targets[patients != p], rater[patients != p]) for rater in scores] for p in np.unique(patients)]
    assert jackknifed_areas(targets, scores, patients) == pytest.approx(np.array(expected))


def test_the_only_positive_cannot_be_left_out() -> None:
    found = jackknifed_areas([1, 0, 0], [0.9, 0.1, 0.2], [0, 1, 2])
    assert np.isnan(found[0, 0])
    assert found[1:, 0] == pytest.approx([1, 1])


def test_one_reader_says_nothing_of_others() -> None:
    found = against_readers([0.1], [[0.01]])
    assert found.estimate.value == pytest.approx(0.1)
    assert np.isnan(found.estimate.standard_error)


def test_readers_who_agree_leave_the_cases_as_the_only_source_of_chance() -> None:
    found = against_readers([0.1, 0.1, 0.1], np.full((3, 3), 0.0004))
    assert found.estimate.standard_error == pytest.approx(0.02)
    assert np.isinf(found.estimate.degrees_of_freedom)
