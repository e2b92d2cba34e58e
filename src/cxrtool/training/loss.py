"""The masked loss and the weights of positive labels."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional


def masked_bce(
    logits: Tensor, targets: Tensor, mask: Tensor, pos_weight: Tensor | None = None, cells: Tensor | None = None
) -> Tensor:
    """Binary cross-entropy with logits, averaged over the cells that count.

    Args:
        logits: [B, F] float32.
        targets: [B, F] float32, 0 or 1 even where masked out, because a NaN there would make the gradient NaN.
        mask: [B, F] bool, True where the cell counts.
        pos_weight: [F] float32, factor on the loss of positives.
        cells: number of cells that count, a scalar, if the batch is a share of a larger one; the losses of the shares
            then add up to that of the whole.

    Returns:
        A scalar; 0, with zero gradients, if no cell counts.
    """
    losses = functional.binary_cross_entropy_with_logits(logits, targets, pos_weight=pos_weight, reduction="none")
    return (losses * mask).sum() / (mask.sum() if cells is None else cells).clamp(min=1)


def positive_weights(
    targets: NDArray[np.float32], mask: NDArray[np.bool_], clip: float
) -> tuple[NDArray[np.float32], tuple[int, ...]]:
    """Return negatives / positives per finding over the cells that count, limited to `clip`.

    Args:
        targets: [N, F] of 0 and 1.
        mask: [N, F] bool.
        clip: largest weight, at least 1. It keeps rare findings from dominating, and is the weight of a finding without
            positives, whose ratio is infinite.

    Returns:
        weights: [F] float32; 1 for a finding without negatives, because 0 would stop it from being learnt.
        one_class: columns with only one class, or without any cell that counts.
    """
    positives = ((targets > 0.5) & mask).sum(axis=0)
    negatives = ((targets <= 0.5) & mask).sum(axis=0)
    ratio = np.divide(negatives, positives, out=np.full(positives.shape, clip, dtype=np.float64), where=positives > 0)
    weights = np.where(negatives > 0, np.minimum(ratio, clip), 1.0).astype(np.float32)
    one_class = tuple(int(column) for column in np.flatnonzero((positives == 0) | (negatives == 0)))
    return weights, one_class
