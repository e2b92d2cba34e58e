"""Characteristics of a split, counted by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cxrtool.choices import Blank
from cxrtool.data.characteristics import Characteristics, LabelCounts, characteristics_of
from cxrtool.data.manifest import Manifest


def texts(*values: str) -> np.ndarray:
    return np.array(values, dtype=object)


@pytest.fixture
def manifest() -> Manifest:
    """Four patients: a with two studies, of which one has two images; the label columns are equal but the first."""
    nan = np.nan
    first = [1, -1, nan, 0, nan]
    labels = np.array([[value, 0, 0, 0, 0] for value in first], dtype=np.float32)
    return Manifest(
        root=Path(),
        split="test",
        sheet=Path("test.csv"),
        sheet_sha256="",
        paths=texts("a1.jpg", "a2.jpg", "a3.jpg", "b.jpg", "c.jpg"),
        lines=np.arange(2, 7),
        patients=texts("a", "a", "a", "b", "c"),
        studies=texts("a/1", "a/2", "a/2", "b/1", "c/1"),
        views=texts(*["frontal"] * 5),
        projections=texts("AP", "AP", "PA", "AP", ""),
        sexes=texts("Female", "Female", "Female", "Male", ""),
        ages=np.array([61, 60, 60, 90, nan], dtype=np.float32),
        raw_labels=labels,
    )


def test_patients_images_and_studies_are_counted_each_in_their_unit(manifest: Manifest) -> None:
    found = characteristics_of(manifest)
    assert (found.patients, found.studies, found.images) == (3, 4, 5)
    # Ages are those at the first study, 60 and 90; quartiles by linear interpolation.
    assert (found.ages, found.ages_known, found.over_89) == ((67.5, 75.0, 82.5), 2, 1)
    assert found.sexes == {"Female": 1, "Male": 1, "not given": 1}
    assert found.projections == {"AP": 3, "PA": 1, "not given": 1}
    # Study a/2 has an uncertain and a blank label, and counts as uncertain.
    assert found.labels["Atelectasis"] == LabelCounts(positive=1, negative=1, uncertain=1, blank=1)
    assert found.labels["Edema"] == LabelCounts(positive=0, negative=4, uncertain=0, blank=0)


def test_a_patient_whose_rows_differ_in_sex_and_a_study_whose_images_differ_in_labels(manifest: Manifest) -> None:
    labels = np.array([[1, 1, -1, 0, 1]] * 5, dtype=np.float32)
    labels[1:3, 0] = [np.nan, -1]  # the two images of study a/2
    labels[1:3, 1] = [-1, 0]
    labels[1:3, 2] = [np.nan, np.nan]
    found = characteristics_of(replace(manifest, sexes=texts("Male", "Male", "", "Male", "Male"), raw_labels=labels))
    assert found.sexes == {"Male": 2, "differs": 1}
    assert [found.labels[name] for name in manifest.findings][:3] == [
        LabelCounts(positive=3, negative=0, uncertain=1, blank=0),
        LabelCounts(positive=3, negative=1, uncertain=0, blank=0),
        LabelCounts(positive=0, negative=0, uncertain=3, blank=1),
    ]


def test_prevalence_counts_blank_labels_as_told() -> None:
    counts = LabelCounts(positive=1, negative=1, uncertain=5, blank=2)
    assert counts.prevalence(Blank.NEGATIVE) == 0.25
    assert counts.prevalence(Blank.IGNORE) == 0.5
    assert LabelCounts(0, 0, 3, 2).prevalence(Blank.IGNORE) is None


def test_they_are_read_back_and_incomplete_ones_are_none(manifest: Manifest) -> None:
    found = characteristics_of(manifest)
    assert Characteristics.from_dict(found.to_dict()) == found
    assert Characteristics.from_dict({"patients": 3}) is None
