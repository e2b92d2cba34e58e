"""Labels as targets and a mask."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cxrtool.choices import Blank, Policy
from cxrtool.data.labels import contradicting_studies, encode_labels
from cxrtool.findings import CHEXPERT5, UncertaintyPolicy

RAW = np.array([[1, 0, -1, np.nan, 1], [-1, -1, 0, 1, np.nan]], dtype=np.float32)


def test_u_ignore_masks_uncertain_cells_and_reads_blank_as_negative() -> None:
    targets, mask = encode_labels(RAW, UncertaintyPolicy.parse("u-ignore").of(CHEXPERT5))
    assert targets.tolist() == [[1, 0, 0, 0, 1], [0, 0, 0, 1, 0]]
    assert mask.tolist() == [[True, True, False, True, True], [False, False, True, True, True]]


def test_u_ones_and_u_zeros_keep_every_cell() -> None:
    ones, mask = encode_labels(RAW, UncertaintyPolicy.parse("u-ones").of(CHEXPERT5))
    zeros, _ = encode_labels(RAW, UncertaintyPolicy.parse("u-zeros").of(CHEXPERT5))
    assert ones[:, :3].tolist() == [[1, 0, 1], [1, 1, 0]]
    assert zeros[:, :3].tolist() == [[1, 0, 0], [0, 0, 0]]
    assert mask.all()


def test_a_policy_may_differ_by_finding() -> None:
    policy = UncertaintyPolicy.parse("u-ignore,Atelectasis=u-ones,edema=u-zeros")
    targets, mask = encode_labels(np.full((1, 5), -1, dtype=np.float32), policy.of(CHEXPERT5))
    assert targets.tolist() == [[1, 0, 0, 0, 0]]
    assert mask.tolist() == [[True, False, False, True, False]]


def test_blank_may_be_ignored() -> None:
    _, mask = encode_labels(RAW, UncertaintyPolicy.parse("u-ones").of(CHEXPERT5), Blank.IGNORE)
    assert mask.tolist() == [[True, True, True, False, True], [True, True, True, True, False]]


def test_studies_with_both_labels_of_a_finding_contradict() -> None:
    studies = np.array(["p2/s1", "p1/s1", "p2/s1", "p1/s1", "p3/s1", "p3/s1"], dtype=object)
    targets = np.array([[1, 0], [0, 1], [0, 0], [0, 1], [1, 0], [0, 0]], dtype=np.float32)
    mask = np.array([[1, 1], [1, 1], [1, 1], [1, 0], [1, 1], [0, 1]], dtype=bool)
    assert contradicting_studies(studies, targets, mask) == ("p2/s1",)
    assert contradicting_studies(studies[:0], targets[:0], mask[:0]) == ()


@given(st.lists(st.sampled_from([1.0, 0.0, -1.0, float("nan")]), min_size=5, max_size=5), st.sampled_from(list(Policy)))
def test_neither_nan_nor_minus_one_survives(row: list[float], policy: Policy) -> None:
    for blank in Blank:
        targets, _ = encode_labels(np.array([row], dtype=np.float32), [policy] * 5, blank)
        assert set(targets.ravel().tolist()) <= {0.0, 1.0}
