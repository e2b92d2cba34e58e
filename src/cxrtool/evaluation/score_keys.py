"""Which rows of two tables are of the same image or study, by keys that may be written in different ways."""

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from cxrtool.data.identity import names_of_study

Texts = NDArray[np.object_]
EXAMPLES = 3
_IMAGE = re.compile(r"\.(?:jpe?g|png|dcm|dicom|tiff?|bmp|gz)$", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class Matched:
    """The group of each row of labels, of each row of scores (-1 for none), and the groups' keys.

    `how` says how keys were compared, empty if as written.
    """

    labels: NDArray[np.int64]
    scores: NDArray[np.int64]
    keys: Texts
    how: str


def match_keys(labels: Texts, scores: Texts) -> Matched | str:
    """Return which rows belong together.

    Keys are compared as written; then without what comes before the patient and without a suffix; then by study. If
    none of these finds a score for every row of labels, what is missing is returned in words.
    """
    missing = ""
    ways = ((str, ""), (short_key, "from the patient on, without what comes before and without suffix"))
    for reduce, how in (*ways, (_study_key, "by study")):
        ours, theirs = (np.array([reduce(str(key)) for key in keys], dtype=object) for keys in (labels, scores))
        if "" in ours or (reduce is short_key and len(set(ours)) < len(ours)):
            continue
        names, first, group = np.unique(ours.astype(str), return_index=True, return_inverse=True)
        order = np.argsort(np.argsort(first))
        keys = names[np.argsort(first)].astype(object)
        place = {str(name): number for number, name in enumerate(keys)}
        found = np.array([place.get(str(key), -1) for key in theirs], dtype=np.int64)
        absent = np.setdiff1d(np.arange(len(keys)), found)
        if not len(absent):
            return Matched(order[group].astype(np.int64), found, keys, how)
        missing = missing or (
            f"no score for {len(absent)} of {len(keys)} rows ({', '.join(str(keys[n]) for n in absent[:EXAMPLES])})"
        )
    return missing


def short_key(key: str) -> str:
    """Return a path or study from its patient on and without suffix, such as ``patient00001/study1/view1_frontal``.

    Of names that no known data set has, it is the last part without suffix.
    """
    plain = _IMAGE.sub("", key.replace("\\", "/").rstrip("/"))
    _, patient = identity_of(key)
    return plain[plain.rfind(patient) :] if patient else PurePosixPath(plain).name


def _study_key(key: str) -> str:
    study, _ = identity_of(key)
    return study


def identity_of(key: str) -> tuple[str, str]:
    """Return study and patient of a key; two empty texts if it has the form of no known data set."""
    found = names_of_study(key)
    return found if found[0] else names_of_study(f"{key.rstrip('/')}/x")


def names_image(key: str) -> bool:
    """Return whether a key is the name of an image file."""
    return _IMAGE.search(key) is not None
