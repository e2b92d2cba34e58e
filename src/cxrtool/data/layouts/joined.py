"""Labels from another file, joined to the images of a sheet by path or by study.

Such files are CheXbert's and VisualCheXbert's labels of CheXpert's train images (``train_cheXbert.csv``,
``train_visualCheXbert.csv``, with CheXpert's own header; VisualCheXbert's are 1 or 0 only), CheXpert Plus's JSON lines
(``path_to_image`` and 14 findings), MIMIC-CXR-JPG's labels by study (``subject_id``, ``study_id``), and the official
test labels by ``Path`` or ``Study``. What CheXbert's own program writes has a column ``Report Impression`` and no path:
add the column Path of the reports that it read, which are in the same order.
"""

import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from cxrtool.data.identity import identify, names_of_study
from cxrtool.data.layouts.any_sheet import PATHS
from cxrtool.data.sheets import Sheet, columns_by_meaning, joint_digest, sheet_of
from cxrtool.data.text_file import TextFile
from cxrtool.errors import SheetError

_MIMIC = re.compile(r"^p?(\d{8})/s?(\d{8})$")
_STUDY = {"patient": ("subject_id", "patient_id", "patient"), "study": ("study_id", "study")}


@dataclass(frozen=True, eq=False)
class LabelFile:
    """Labels by key.

    Attributes:
        sheet: the file with the labels of the findings that it has.
        keys: [N] text, distinct.
        by: ``path``, ``study`` (patient and study) or ``study alone``.
    """

    sheet: Sheet
    keys: tuple[str, ...]
    by: str


def labels_in(file: TextFile, findings: Sequence[str]) -> LabelFile:
    """Return the labels in a file and what they are joined by.

    Raises:
        SheetError: the file cannot be used, has no column of paths or studies, none of the findings, a label that is
            not 1, 0, -1 or blank, or one image or study with two different labels.
    """
    path = file.path
    named = columns_by_meaning(file.header, {"path": PATHS, **_STUDY})
    if "path" not in named and "study" not in named:
        raise SheetError(
            f"{path} has no column of paths or studies by which its labels could be joined",
            f"Add a column Path, or study_id. It has {', '.join(file.header)}.",
        )
    keys = list(dict.fromkeys(one for found in named.values() for one in found))
    sheet = sheet_of(file, keys, optional=tuple(findings))
    there = [finding for finding in findings if finding in sheet.frame]
    if not there:
        raise SheetError(f"{path} has no column for any of {', '.join(findings)}", f"It has {', '.join(file.header)}.")
    sheet = replace(sheet, labels={finding: sheet.values(finding) for finding in there})
    texts, by = _keys(sheet, named)
    return _distinct(sheet, texts, by)


def _keys(sheet: Sheet, named: dict[str, tuple[str, ...]]) -> tuple[list[str], str]:
    if "path" in named:
        return [path_key(text) for text in sheet.frame[named["path"][0]].tolist()], "path"
    studies = sheet.frame[named["study"][0]].tolist()
    if "patient" in named:
        patients = sheet.frame[named["patient"][0]].tolist()
        return [f"{patient}/{study}" for patient, study in zip(patients, studies, strict=True)], "study"
    if names_of_study(f"{studies[0].rstrip('/')}/x")[0]:
        return [study_key(names_of_study(f"{text.rstrip('/')}/x")[0] or text) for text in studies], "study"
    return [text.strip() for text in studies], "study alone"


def path_key(path: str) -> str:
    """Return what identifies an image in sheets with other folders or formats: its study and its name.

    A path that does not name a study is itself the key.
    """
    study, _ = names_of_study(path)
    name = path.replace("\\", "/").rpartition("/")[2]
    return f"{study}/{name.partition('.')[0]}" if study else posixpath.normpath(path.strip())


def study_key(study: str) -> str:
    """Return what identifies a study; MIMIC's ``p10000032/s50414267`` is ``10000032/50414267``."""
    found = _MIMIC.match(study)
    return f"{found[1]}/{found[2]}" if found else study


def _distinct(sheet: Sheet, keys: list[str], by: str) -> LabelFile:
    first: dict[str, int] = {}
    kept = np.ones(len(keys), dtype=np.bool_)
    values = np.column_stack(list(sheet.labels.values()))
    for row, key in enumerate(keys):
        earlier = first.setdefault(key, row)
        if earlier == row:
            continue
        if not np.array_equal(values[earlier], values[row], equal_nan=True):
            raise SheetError(
                f"{sheet.path} lines {sheet.lines[earlier]} and {sheet.lines[row]} give {key} different labels",
                "Remove the wrong one.",
            )
        kept[row] = False
    return LabelFile(sheet.select(kept), tuple(first), by)


def with_labels(sheet: Sheet, labels: LabelFile, of_more: bool = False) -> Sheet:
    """Return the rows of a sheet that have a label, with these labels; a note counts those that have none.

    A blank label means "not mentioned", so a row of which the file says nothing is left out rather than left blank.

    Args:
        sheet: the images.
        labels: the labels.
        of_more: the labels are those of more images than the sheet's, such as of other splits; otherwise another note
            counts labels without an image.

    Raises:
        SheetError: no row has a label, or the sheet names no studies.
    """
    found, unused = match(sheet, labels)
    rows = found >= 0
    if not rows.any():
        raise SheetError(
            f"{labels.sheet.path} has no label for any image of {sheet.path} (joined by {labels.by}; its first is "
            f"{labels.keys[0]!r})",
            "Check that it belongs to these images.",
        )
    kept = sheet.select(rows)
    values = {finding: column[found[rows]] for finding, column in labels.sheet.labels.items()}
    frame = kept.frame.drop(columns=[finding for finding in values if finding in kept.frame])
    name, notes = labels.sheet.path.name, []
    if not rows.all():
        count = int((~rows).sum())
        notes.append(f"{name}: {count:,} of {len(rows):,} images of {sheet.path.name} have no label and are left out")
    if unused and not of_more:
        notes.append(f"{name}: {unused:,} of {len(labels.keys):,} labels belong to no image of {sheet.path.name}")
    digest = joint_digest(sheet.sha256, labels.sheet.sha256)
    return replace(kept, frame=frame, labels=values, sha256=digest, notes=(*kept.notes, *notes))


def match(sheet: Sheet, labels: LabelFile) -> tuple[np.ndarray[tuple[int], np.dtype[np.intp]], int]:
    """Return the row of each image's labels, [N] with -1 for none, and the number of labels that no image has."""
    paths = sheet.frame["Path"].tolist()
    if labels.by == "path":
        keys = [path_key(path) for path in paths]
    else:
        keys = [study_key(str(study)) for study in identify(sheet, paths).studies]
        if labels.by == "study alone":
            keys = [key.rpartition("/")[2] for key in keys]
    found = pd.Index(labels.keys).get_indexer(pd.Index(keys))
    return found, len(labels.keys) - len(np.unique(found[found >= 0]))
