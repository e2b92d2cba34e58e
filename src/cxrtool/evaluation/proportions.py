"""Intervals of a share of rows, where the rows of one patient are alike."""

from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray


def effective_rows(counted: ArrayLike, groups: ArrayLike) -> float:
    """Return the number of independent rows that would determine a share as well as these do: N / design effect.

    The design effect is the variance of the share by whole patients over that by rows (Rao & Scott 1992, Biometrics
    48:577), at least 1 so that chance does not narrow an interval.

    Args:
        counted: [N] bool, whether each row counts.
        groups: [N], patient of each row.

    Returns:
        In (0, N]; 0 without rows.
    """
    values = np.asarray(counted, dtype=np.float64)
    rows = len(values)
    if rows == 0:
        return 0.0
    _, group = np.unique(np.asarray(groups), return_inverse=True)
    share, patients = values.mean(), int(group.max()) + 1
    # Rows in one cluster are at most as good as one row each; a share of 0 or 1 shows no variance to compare.
    if patients == rows or not 0 < share < 1:
        return float(patients)
    residuals = np.bincount(group, values - share)
    by_patient = patients / max(patients - 1, 1) * np.sum(residuals**2) / rows**2
    return float(rows / max(1.0, by_patient / (share * (1 - share) / rows)))


def wilson(share: ArrayLike, rows: ArrayLike, confidence: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return Wilson's score interval (1927, Journal of the American Statistical Association 22:209) of shares.

    Args:
        share: in [0, 1], any shape.
        rows: number of independent rows behind each, above 0, not necessarily whole.
        confidence: between 0 and 1.
    """
    p, n = np.asarray(share, dtype=np.float64), np.asarray(rows, dtype=np.float64)
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    reach = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    # Rounding must not exclude the share itself, least of all one of 0 or 1.
    return np.clip(np.minimum(middle - reach, p), 0, 1), np.clip(np.maximum(middle + reach, p), 0, 1)
