"""Conversion of raw labels into targets and a mask, and of numbers into a dict by finding.

Separate from `cxrtool.findings`, which `cxr --help` imports and which must therefore not import numpy.
"""

import logging
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cxrtool.choices import Blank, Policy
from cxrtool.findings import UNCERTAIN, Findings

log = logging.getLogger(__name__)

_EXAMPLES = 3


def encode_labels(
    raw_labels: NDArray[np.float32], policies: Sequence[Policy], blank: Blank = Blank.NEGATIVE
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Convert CheXpert's labels into targets and a mask, as in Irvin et al. 2019.

    Args:
        raw_labels: [N, F] of 1, 0, -1 and NaN (blank).
        policies: what -1 becomes, for each finding; see `UncertaintyPolicy.of`.
        blank: what NaN becomes.

    Returns:
        targets: [N, F] float32, 0 or 1; 0 where masked out, so that neither NaN nor -1 can reach a loss.
        mask: [N, F] bool, False for cells that are left out of losses and metrics.
    """
    targets = np.nan_to_num(raw_labels, nan=0.0).astype(np.float32)
    mask = np.ones(raw_labels.shape, dtype=np.bool_)
    if blank is Blank.IGNORE:
        mask &= ~np.isnan(raw_labels)
    uncertain = raw_labels == UNCERTAIN
    for column, chosen in enumerate(policies):
        rows = uncertain[:, column]
        targets[rows, column] = 1.0 if chosen is Policy.U_ONES else 0.0
        if chosen is Policy.U_IGNORE:
            mask[rows, column] = False
    return targets, mask


def contradicting_studies(
    studies: NDArray[np.object_], targets: NDArray[np.float32], mask: NDArray[np.bool_]
) -> tuple[str, ...]:
    """Return the studies in which a finding is positive for one image and negative for another, in sorted order.

    Args:
        studies: [N] text, study of each image.
        targets: [N, F] of 0 and 1.
        mask: [N, F], False for labels that do not count.
    """
    names, group = np.unique(studies.astype(str), return_inverse=True)
    positive, negative = (np.zeros((len(names), targets.shape[1]), dtype=np.bool_) for _ in range(2))
    np.logical_or.at(positive, group, mask & (targets > 0.5))
    np.logical_or.at(negative, group, mask & (targets <= 0.5))
    return tuple(str(name) for name in names[(positive & negative).any(axis=1)])


def warn_of_contradictions(
    origin: str, studies: NDArray[np.object_], targets: NDArray[np.float32], mask: NDArray[np.bool_]
) -> None:
    """Log a warning with the number of `contradicting_studies` and examples, if there are some."""
    found = contradicting_studies(studies, targets, mask)
    if found:
        log.warning(
            "%s: studies with images whose labels contradict each other: %d (%s); such a study counts as positive",
            origin,
            len(found),
            ", ".join(found[:_EXAMPLES]) + (", ..." if len(found) > _EXAMPLES else ""),
        )


def by_finding(values: NDArray[np.floating], findings: Findings) -> Mapping[str, float]:
    """Return a number per finding [F] as a dict, as all files hold them."""
    return {finding: float(value) for finding, value in zip(findings, values, strict=True)}
