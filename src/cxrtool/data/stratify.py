"""Spreading groups, such as patients, over splits so that each split has its share of every label."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def stratify(labels: NDArray[np.bool_], shares: Sequence[float], seed: int) -> NDArray[np.int64]:
    """Assign each group to one part, by iterative stratification.

    The rarest label is spread first, because later there would be too few of its groups left to choose from. Algorithm
    of Sechidis, Tsoumakas and Vlahavas 2011 (On the Stratification of Multi-Label Data, ECML PKDD).

    Args:
        labels: [G, L], whether a group has a label; L may be 0, which gives random parts of the wanted sizes.
        shares: share of each part, at least 0, with a sum of 1.
        seed: random seed for the order of groups and for ties.

    Returns:
        [G] number of each group's part. A part with share 0 gets no group.
    """
    rng = np.random.default_rng(seed)
    wanted = np.asarray(shares, dtype=np.float64)
    parts = np.flatnonzero(wanted > 0)
    space = wanted[parts] * len(labels)
    space_of_label = wanted[parts, None] * labels.sum(axis=0)
    assigned = np.full(len(labels), -1, dtype=np.int64)
    order = rng.permutation(len(labels))
    left = labels.sum(axis=0)
    while (left > 0).any():
        label = int(np.where(left > 0, left, len(labels) + 1).argmin())
        for group in order[(assigned[order] < 0) & labels[order, label]]:
            part = _neediest(space_of_label[:, label], space, rng)
            assigned[group] = part
            space[part] -= 1
            space_of_label[:, labels[group]] -= (np.arange(len(parts)) == part)[:, None]
            left -= labels[group]
    for group in order[assigned[order] < 0]:
        part = _neediest(space, space, rng)
        assigned[group] = part
        space[part] -= 1
    return parts[assigned]


def _neediest(first: NDArray[np.float64], second: NDArray[np.float64], rng: np.random.Generator) -> int:
    """Return the part with the most space by `first`, then by `second`, then at random."""
    best = np.flatnonzero(first == first.max())
    if len(best) > 1:
        best = best[second[best] == second[best].max()]
    return int(best[0] if len(best) == 1 else rng.choice(best))
