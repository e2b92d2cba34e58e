"""Splitting one sheet into train, valid and test without splitting a patient, and the record of how it was done."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrtool.data.identity import Texts, identifiers, identify
from cxrtool.data.layouts.any_sheet import rows_of
from cxrtool.data.layouts.base import Wanted
from cxrtool.data.layouts.chexpert import SHEET_NAMES
from cxrtool.data.sheets import Sheet
from cxrtool.data.stratify import stratify
from cxrtool.data.text_file import read_text_file
from cxrtool.errors import RequestError
from cxrtool.files import write_bytes, write_json
from cxrtool.findings import UNCERTAIN, Findings
from cxrtool.sheet_options import SPLITS, SheetColumns

RECORD_NAME = "split.json"
BY_PATIENT = "patient"


@dataclass(frozen=True)
class SplitPlan:
    """How a sheet is split.

    Attributes:
        valid: share of the groups for valid.
        test: share of the groups for test.
        by: ``patient``, or a column whose rows with one value stay together, such as a hospital.
        seed: random seed.
    """

    valid: float = 0.1
    test: float = 0.1
    by: str = BY_PATIENT
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.valid, self.test) < 0 or self.valid + self.test >= 1:
            raise RequestError(
                f"the shares {self.valid:g} for valid and {self.test:g} for test leave nothing for train",
                "Give shares of at least 0 with a sum below 1, such as --valid 0.1 --test 0.1.",
            )

    @property
    def shares(self) -> tuple[float, float, float]:
        """Share of each of `SPLITS`."""
        return 1 - self.valid - self.test, self.valid, self.test


@dataclass(frozen=True)
class SplitPart:
    """One sheet that was written.

    Attributes:
        sheet: name of the file.
        sha256: digest of the file.
        rows: number of rows.
        patients: number of patients.
        studies: number of studies.
        positive: number of rows labelled 1, by finding.
        uncertain: number of rows labelled -1, by finding.
    """

    sheet: str
    sha256: str
    rows: int
    patients: int
    studies: int
    positive: dict[str, int]
    uncertain: dict[str, int]


@dataclass(frozen=True)
class SplitRecord:
    """What was split and how; the content of ``split.json``.

    Attributes:
        source: name of the sheet that was split.
        source_sha256: its digest.
        plan: how it was split.
        groups: number of patients, or of other groups, that were kept whole.
        parts: the sheets that were written, by split.
    """

    source: str
    source_sha256: str
    plan: SplitPlan
    groups: int
    parts: dict[str, SplitPart]


def split_sheet(
    path: Path, out: Path, plan: SplitPlan, findings: Findings, columns: SheetColumns | None = None
) -> SplitRecord:
    """Write the rows of a sheet to ``train.csv``, ``valid.csv`` and ``test.csv`` in `out`, with a record.

    All columns are kept as they are written. Patients come from a column or from the paths, see `identify`. Positive
    and uncertain labels of `findings`, as far as the sheet has them, are spread evenly; see `stratify`.

    Args:
        path: a sheet with paths, in any format of `read_text_file`.
        out: folder of the new sheets. A split with share 0 gets none.
        plan: shares, groups and seed.
        findings: findings to spread evenly.
        columns: columns of the sheet that have other names than the usual ones.

    Raises:
        SheetError: the sheet cannot be read, or names no patients.
        RequestError: a sheet is already there, the groups are too few, or a patient is in two of them.
        WriteError: the folder cannot be written.
    """
    _refuse_existing(out)
    file = read_text_file(path)
    further = () if plan.by == BY_PATIENT else (plan.by,)
    sheet = rows_of(file, Wanted(findings.names, further, partial=True), columns or SheetColumns())
    present = tuple(finding for finding in findings if sheet.has_labels(finding))
    labels = np.column_stack([np.empty((len(sheet.lines), 0)), *(sheet.values(finding) for finding in present)])
    identity = identify(sheet, sheet.frame["Path"].tolist())
    groups = identity.patients if plan.by == BY_PATIENT else identifiers(sheet, plan.by)
    _refuse_shared(sheet, plan.by, groups, identity.patients)
    codes, names = pd.factorize(groups)
    _refuse_few(path, plan, len(names))
    parts = stratify(_labels_of_groups(codes, len(names), labels), plan.shares, plan.seed)[codes]
    content = file.columns(file.header)
    written = {}
    for number, split in enumerate(SPLITS):
        rows = parts == number
        if not rows.any():
            continue
        sheet_path = out / SHEET_NAMES[split][0]
        text = content[rows].to_csv(index=False, lineterminator="\n").encode()
        write_bytes(sheet_path, text)
        written[split] = SplitPart(
            sheet=sheet_path.name,
            sha256=hashlib.sha256(text).hexdigest(),
            rows=int(rows.sum()),
            patients=len(set(identity.patients[rows])),
            studies=len(set(identity.studies[rows])),
            positive=_counts(labels[rows] == 1, present),
            uncertain=_counts(labels[rows] == UNCERTAIN, present),
        )
    record = SplitRecord(path.name, file.sha256, plan, len(names), written)
    write_json(out / RECORD_NAME, asdict(record))
    return record


def _refuse_existing(out: Path) -> None:
    for name in (*(name for split in SPLITS for name in SHEET_NAMES[split]), RECORD_NAME):
        if (out / name).exists():
            raise RequestError(f"{out / name} is already there", "Name another folder.")


def _refuse_shared(sheet: Sheet, by: str, groups: Texts, patients: Texts) -> None:
    """Refuse groups that share a patient, who would then be in two splits."""
    pairs = pd.DataFrame({"patient": patients, "group": groups}).drop_duplicates()
    twice = pairs["patient"][pairs["patient"].duplicated()]
    if len(twice):
        named = pairs["group"][pairs["patient"] == twice.iloc[0]].tolist()
        raise RequestError(
            f"{sheet.path}: patient {twice.iloc[0]} has {by} {named[0]} and {named[1]}, and may not be in two splits",
            "Split by patient, or by a column that has one value for each patient.",
        )


def _refuse_few(path: Path, plan: SplitPlan, groups: int) -> None:
    smallest = min(share for share in plan.shares if share > 0)
    if groups * smallest < 1:
        raise RequestError(
            f"{path} has {groups} {'patients' if plan.by == BY_PATIENT else f'values of {plan.by}'}, and a share of "
            f"{smallest:g} of them is less than one",
            "Give larger shares, or --test 0 to split off valid only.",
        )


def _labels_of_groups(codes: NDArray[np.int64], groups: int, labels: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return whether each group has a positive, then an uncertain label of each finding: [G, 2 x F]."""
    rows = np.concatenate((labels == 1, labels == UNCERTAIN), axis=1)
    found = np.zeros((groups, rows.shape[1]), dtype=np.bool_)
    np.logical_or.at(found, codes, rows)
    return found


def _counts(rows: NDArray[np.bool_], findings: Sequence[str]) -> dict[str, int]:
    return {finding: int(count) for finding, count in zip(findings, rows.sum(axis=0), strict=True)}


def read_record(folder: Path) -> SplitRecord | None:
    """Return the record in `folder`; None if there is none.

    Raises:
        RequestError: it cannot be read.
    """
    path = folder / RECORD_NAME
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        parts = {split: SplitPart(**part) for split, part in content["parts"].items()}
        return SplitRecord(**(content | {"plan": SplitPlan(**content["plan"]), "parts": parts}))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        raise RequestError(
            f"{path} is not a record of cxr split", "Copy it again, or remove it to go without it."
        ) from None


def changed_sheets(record: SplitRecord, digests: Mapping[str, str]) -> list[str]:
    """Return a sentence for each sheet that is not the one in the record; `digests` is by split."""
    return [
        f"{part.sheet} was changed after cxr split wrote it ({RECORD_NAME} has another digest)"
        for split, part in record.parts.items()
        if split in digests and digests[split] != part.sha256
    ]
