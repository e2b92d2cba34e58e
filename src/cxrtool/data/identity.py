"""Patient, study, view and age of each row of a sheet: from named columns, else from the text of the path.

Nothing here looks at the disk: a folder that is missing must not change who a patient is.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrtool.data.sheets import Sheet
from cxrtool.errors import SheetError

Texts = NDArray[np.object_]

ALIASES: dict[str, tuple[str, ...]] = {
    "patient": ("patient_id", "subject_id", "deid_patient_id", "patient", "subject"),
    "study": ("study_id", "study_instance_uid", "accession_number", "exam_id", "study"),
    "view": ("frontal_lateral", "view", "view_position", "projection", "ap_pa"),
    "projection": ("ap_pa", "view_position", "projection"),
    "sex": ("sex", "patient_sex", "gender", "patient_gender"),
    "age": ("age", "patient_age", "age_years", "anchor_age"),
}
"""Names of columns by meaning, the preferred one first. Case, spaces, ``_``, ``-`` and ``/`` do not matter."""

_CHEXPERT = re.compile(
    r"^(?:[^\n]*/)?((patient[_-]?\d[^/\n]*)/study[_-]?\d[^/\n]*)/[^/\n]*$",
    re.MULTILINE,
)
_MIMIC = re.compile(r"^(?:[^\n]*/)?((p\d{8})/s\d{8})/[^/\n]*$", re.MULTILINE)
_NIH = re.compile(r"^(?:[^\n]*/)?((\d{8})_\d{3})\.[A-Za-z0-9.]+$", re.MULTILINE)
_PATTERNS = (_CHEXPERT, _MIMIC, _NIH)
"""Each matches a line that is a path, and captures its study and its patient."""
KNOWN_PATHS = "patient00001/study1/..., p10000001/s50000001/... or 00000001_000.png"

_ROWS_AT_ONCE = 50_000
_EXAMPLES = 3

_FRONTAL = {"frontal", "ap", "pa", "front", "posteroanterior", "anteroposterior"}
_LATERAL = {"lateral", "ll", "rl", "lat", "l", "left lateral", "right lateral", "lateral left", "lateral right"}
_POSITIONS = {"supine", "erect", "portable", "upright", "sitting", "semi", "horizontal", "axial", "mobile"}
"""Words after AP or PA that leave a view frontal."""
UNKNOWN = "unknown"
"""View of a row whose cells cannot be read; such rows are used only with ``--views all``."""

_AGE = re.compile(r"^(\d{1,3}(?:\.\d+)?)\s*([YMWDymwd]?)$")
_OVER = re.compile(r"^(?:>\s*(\d{1,3})|(\d{1,3})\s*\+)\s*[Yy]?$")
_YEARS = {"": 1.0, "Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}
_OLDEST = 130


@dataclass(frozen=True, eq=False)
class Identity:
    """Patient and study of each row.

    Attributes:
        patients: [N] text.
        studies: [N] text, which no two patients share.
        source: where patients come from: ``column`` or ``path``.
    """

    patients: Texts
    studies: Texts
    source: str


def identify(sheet: Sheet, paths: Sequence[str]) -> Identity:
    """Return patient and study of each row.

    Args:
        sheet: the sheet with the columns of `ALIASES`, as far as it has them.
        paths: [N] text, as written in the sheet.

    Raises:
        SheetError: neither a column nor the path names the patient or the study, a cell of such a column is blank, two
            columns name the patient, or one study has two patients.
    """
    patient_column, study_column = _only_column(sheet, "patient"), _first_column(sheet, "study")
    patients = None if patient_column is None else identifiers(sheet, patient_column)
    if patients is not None and study_column is not None:
        return Identity(patients, _join(patients, identifiers(sheet, study_column)), "column")
    of_paths, studies, unknown = _parse(paths)
    if unknown:
        raise _cannot_identify(sheet, paths, unknown, patient_column, study_column)
    if patients is not None:
        _refuse_two_patients(sheet, patients, studies)
        return Identity(patients, studies, "column")
    if study_column is not None:
        studies = _join(of_paths, identifiers(sheet, study_column))
    return Identity(of_paths, studies, "path")


def _first_column(sheet: Sheet, meaning: str) -> str | None:
    return next(iter(sheet.named.get(meaning, ())), None)


def _only_column(sheet: Sheet, meaning: str) -> str | None:
    names = sheet.named.get(meaning, ())
    if len(names) > 1:
        raise SheetError(
            f"{sheet.path} names the {meaning} in two columns, {names[0]!r} and {names[1]!r}",
            "Keep the one to go by, and rename or remove the other.",
        )
    return next(iter(names), None)


def identifiers(sheet: Sheet, column: str) -> Texts:
    """Return the cells of a column as [N] text, where ``7.0``, as spreadsheets write numbers, is ``7``.

    Raises:
        SheetError: a cell is blank.
    """
    codes, spellings = pd.factorize(sheet.frame[column])
    known = np.array([_identifier(spelling) for spelling in spellings], dtype=object)
    blank = np.flatnonzero(known == "")
    if len(blank):
        row = int(np.isin(codes, blank).argmax())
        raise SheetError(
            f"{sheet.path} line {sheet.lines[row]} has no {column}", "Fill in the cell, or remove the line."
        )
    found: Texts = known[codes]
    return found


def _identifier(spelling: str) -> str:
    text = spelling.strip()
    return text[:-2] if text.endswith(".0") and text[:-2].isdigit() else text


def _join(patients: Texts, studies: Texts) -> Texts:
    """Return ``patient/study`` of each row, one text object for each study."""
    first, patient_names = pd.factorize(patients)
    second, study_names = pd.factorize(studies)
    codes, pairs = pd.factorize(first.astype(np.int64) * len(study_names) + second)
    names = [f"{patient_names[pair // len(study_names)]}/{study_names[pair % len(study_names)]}" for pair in pairs]
    found: Texts = np.array(names, dtype=object)[codes]
    return found


def _parse(paths: Sequence[str]) -> tuple[Texts, Texts, list[int]]:
    """Return patients and studies by the patterns of known data sets, and the rows that match none."""
    patients, studies = np.empty(len(paths), dtype=object), np.empty(len(paths), dtype=object)
    unknown: list[int] = []
    known: dict[str, str] = {}  # one text object for each patient, however many rows
    for start in range(0, len(paths), _ROWS_AT_ONCE):
        part = paths[start : start + _ROWS_AT_ONCE]
        rows = slice(start, start + len(part))
        found = _parse_alike(part)
        if found is None:
            found = [_parse_one(path) for path in part]
            unknown += [start + row for row, (study, _) in enumerate(found) if not study]
        studies[rows] = [study for study, _ in found]
        patients[rows] = [known.setdefault(patient, patient) for _, patient in found]
    return patients, studies, unknown


def _parse_alike(part: Sequence[str]) -> list[tuple[str, str]] | None:
    """Return study and patient of paths that all match one pattern, three times as fast as one by one; else None."""
    text = "\n".join(part).replace("\\", "/")
    if text.count("\n") != len(part) - 1:  # a path with a line break would shift the rows
        return None
    for pattern in _PATTERNS:
        if pattern.search(part[0].replace("\\", "/")):
            found: list[tuple[str, str]] = pattern.findall(text)
            return found if len(found) == len(part) else None
    return None


def _parse_one(path: str) -> tuple[str, str]:
    text = path.replace("\\", "/").replace("\n", " ")
    for pattern in _PATTERNS:
        found = pattern.search(text)
        if found:
            return found[1], found[2]
    return "", ""


def names_of_study(path: str) -> tuple[str, str]:
    """Return study and patient of a path that has the form of a known data set, else two empty texts."""
    return _parse_one(path)


def names_patient(path: str) -> bool:
    """Return whether a path has the form of a known data set, and so names patient and study."""
    return bool(_parse_one(path)[0])


def _cannot_identify(
    sheet: Sheet, paths: Sequence[str], unknown: Sequence[int], patient: str | None, study: str | None
) -> SheetError:
    absent = [meaning for meaning, column in (("patient", patient), ("study", study)) if column is None]
    columns = " and ".join(f"{meaning}_id" for meaning in absent)
    row = unknown[0]
    return SheetError(
        f"{sheet.path} line {sheet.lines[row]}: neither a column nor the path {paths[row]!r:.200} names the "
        f"{' and the '.join(absent)} ({len(unknown):,} of {len(paths):,} rows)",
        f"Add a column {columns}, or use paths such as {KNOWN_PATHS}."
        if len(absent) == 1
        else f"Add the columns {columns}, or use paths such as {KNOWN_PATHS}.",
    )


def _refuse_two_patients(sheet: Sheet, patients: Texts, studies: Texts) -> None:
    frame = pd.DataFrame({"study": studies, "patient": patients}).drop_duplicates()
    twice = frame.index[frame["study"].duplicated()]
    if len(twice):
        row = int(twice[0])
        raise SheetError(
            f"{sheet.path} line {sheet.lines[row]}: the images of study {studies[row]} belong to two patients",
            "Correct the patient, or add a column study_id.",
        )


def views_of(sheet: Sheet, paths: Sequence[str]) -> tuple[Texts, tuple[str, ...]]:
    """Return the view of each row, ``frontal``, ``lateral`` or ``unknown``, and notes on what was assumed.

    The columns decide in the order of `ALIASES`, then the file's name. In a sheet without any view, rows whose name
    says nothing count as frontal; in others they are unknown. Both are counted in a note.
    """
    count = len(sheet.lines)
    views = np.full(count, "", dtype=object)
    unreadable = np.full(count, "", dtype=object)
    stated = False
    for column in sheet.named.get("view", ()):
        codes, spellings = pd.factorize(sheet.frame[column])
        known = np.array([_view(spelling) for spelling in spellings], dtype=object)[codes]
        texts = np.array([str(spelling).strip() for spelling in spellings], dtype=object)[codes]
        stated = stated or bool((texts != "").any())
        undecided = views == ""
        views[undecided] = known[undecided]
        unreadable[(views == "") & (unreadable == "")] = texts[(views == "") & (unreadable == "")]
    for row in np.flatnonzero(views == "").tolist():
        name = paths[row].rpartition("/")[2].lower()
        views[row] = "lateral" if "lateral" in name else "frontal" if "frontal" in name else ""
    silent = views == ""
    if not silent.any():
        return views, ()
    views[silent] = UNKNOWN if stated else "frontal"
    where = f"{sheet.path.name}: {int(silent.sum()):,} of {count:,} rows"
    if not stated:
        return views, (f"{where} state no view and are taken as frontal; a column ViewPosition would say",)
    cells = sorted({str(text) for text in unreadable[silent]} - {""})
    examples = f" ({', '.join(map(repr, cells[:_EXAMPLES]))})" if cells else ""
    return views, (
        f"{where} have a view that is blank or cannot be read{examples}; they are used only with --views all",
    )


def _view(spelling: object) -> str:
    text = " ".join(str(spelling).lower().replace("_", " ").split())
    if text in _LATERAL:
        return "lateral"
    first, *others = text.split() or [""]
    return "frontal" if first in _FRONTAL and all(word in _POSITIONS for word in others) else ""


def ages_of(sheet: Sheet) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """Return the age in years of each row, [N] float32, NaN where not given, and a note on cells that cannot be read.

    ``57``, ``57.0`` and ``057Y`` are years, ``006M``, ``010W`` and ``003D`` parts of one; ``>89`` and ``90+`` are 90.
    """
    column = _first_column(sheet, "age")
    if column is None:
        return np.full(len(sheet.lines), np.nan, dtype=np.float32), ()
    codes, spellings = pd.factorize(sheet.frame[column])
    ages = np.array([_age(str(spelling)) for spelling in spellings], dtype=np.float32)
    given = np.array([bool(str(spelling).strip()) for spelling in spellings], dtype=np.bool_)
    wrong = np.isnan(ages) & given
    count = int(wrong[codes].sum())
    if not count:
        return ages[codes], ()
    examples = ", ".join(repr(str(spelling)) for spelling in spellings[wrong][:_EXAMPLES])
    return ages[codes], (f"{sheet.path.name}: {count:,} ages cannot be read ({examples}) and count as not given",)


def _age(spelling: str) -> float:
    text = spelling.strip()
    over = _OVER.match(text)
    if over:
        return float(over[1]) + 1 if over[1] else float(over[2])
    found = _AGE.match(text)
    if not found:
        return np.nan
    years = float(found[1]) * _YEARS[found[2].upper()]
    return years if years <= _OLDEST else np.nan
