import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cxrtool.training.loss import masked_bce, positive_weights


@given(st.integers(0, 10**6))
def test_the_loss_is_the_mean_over_the_cells_that_count(seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits, targets = rng.normal(0, 3, (4, 5)), rng.integers(0, 2, (4, 5)).astype(float)
    mask, weight = rng.random((4, 5)) < 0.6, rng.uniform(0.5, 8, 5)
    p = 1 / (1 + np.exp(-logits))
    cells = -(weight * targets * np.log(p) + (1 - targets) * np.log(1 - p))
    expected = cells[mask].mean() if mask.any() else 0.0
    tensors = [torch.from_numpy(array) for array in (logits, targets, mask, weight)]
    assert masked_bce(*tensors).item() == pytest.approx(expected, abs=1e-9)


def test_masked_cells_have_no_gradient_and_the_loss_of_no_cells_is_zero() -> None:
    logits = torch.randn(3, 5, requires_grad=True)
    mask = torch.zeros(3, 5, dtype=torch.bool)
    mask[0, 0] = True
    masked_bce(logits, torch.zeros(3, 5), mask).backward()
    assert logits.grad is not None
    assert (logits.grad != 0).sum() == 1
    logits.grad = None
    loss = masked_bce(logits, torch.zeros(3, 5), torch.zeros(3, 5, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert torch.isfinite(logits.grad).all()


def test_positive_weights_of_known_labels_and_without_positives() -> None:
    targets = np.array([[1, 0, 0, 1, 1], [0, 0, 0, 1, 0], [0, 0, 1, 1, 0], [0, 0, 0, 1, 0]], dtype=np.float32)
    mask = np.ones((4, 5), dtype=bool)
    mask[3, 4] = False
    weights, one_class = positive_weights(targets, mask, clip=2.5)
    # 3/1 clipped, none positive: the clip, 3/1 clipped, none negative: 1, 2/1.
    assert weights.tolist() == [2.5, 2.5, 2.5, 1, 2]
    assert one_class == (1, 3)
