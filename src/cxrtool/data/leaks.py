"""Patients in two splits: what is learnt from one is then no news in the other."""

import logging
from collections.abc import Iterable
from itertools import combinations

from cxrtool.choices import Views
from cxrtool.data.manifest import Manifest, available_splits, load_manifest
from cxrtool.errors import RequestError
from cxrtool.settings import DataSettings

log = logging.getLogger(__name__)

_EXAMPLES = 3


def shared_patients(manifests: Iterable[Manifest]) -> list[str]:
    """A sentence for each pair of splits that share patients, with examples."""
    found = []
    for first, second in combinations(manifests, 2):
        shared = sorted(set(first.patients) & set(second.patients))
        if shared:
            examples = ", ".join(shared[:_EXAMPLES])
            found.append(f"{len(shared)} patients are in {first.split} and in {second.split} ({examples})")
    return found


def refuse_shared_patients(data: DataSettings) -> None:
    """Check every sheet of the data folder against the others.

    Raises:
        RequestError: two splits share patients; with `data.i_know` it is a warning.
    """
    if data.root is None:
        return
    found = shared_patients(load_manifest(data.root, split, Views.ALL) for split in available_splits(data.root))
    if not found:
        return
    if not data.i_know:
        raise RequestError("; ".join(found), "Mend the sheets, or go on with --i-know: figures are then too good.")
    for told in found:
        log.warning("%s: figures are too good (--i-know)", told)
