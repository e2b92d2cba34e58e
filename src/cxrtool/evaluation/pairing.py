"""The same rows of several tables, in an order that depends on their contents alone."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cxrtool.errors import RequestError
from cxrtool.evaluation.table import PredictionTable
from cxrtool.findings import Findings


@dataclass(frozen=True)
class Candidate:
    """One model, or several runs that differ only in their seed.

    Attributes:
        name: shown in tables and sentences.
        tables: predictions of each run, on the same rows.
    """

    name: str
    tables: tuple[PredictionTable, ...]


def pair_candidates(candidates: Sequence[Candidate]) -> tuple[tuple[Candidate, ...], tuple[str, ...]]:
    """Bring all tables to the same findings and rows, and say what was left out or assumed.

    Patients get new names, in an order that depends on labels and scores alone, so that draws of patients depend
    neither on names nor on the order of rows.

    Raises:
        RequestError: there are fewer than two candidates, two have the same name, no finding is in all tables, or
            rows, labels or patients differ.
    """
    names = [candidate.name for candidate in candidates]
    if len(candidates) < 2 or len(set(names)) < len(names):
        raise RequestError(f"cannot compare {', '.join(names) or 'nothing'}", "Name two or more different models.")
    shared, notes = _with_shared_findings(candidates)
    reference = shared[0].tables[0]
    _check_patients_given(shared)
    if not reference.patients_given:
        notes += ("no table names patients, so each study counts as a patient: intervals are too narrow if not so",)
    aligned = [
        Candidate(candidate.name, tuple(align(table, reference, candidate.name) for table in candidate.tables))
        for candidate in shared
    ]
    rows, patients = _order([table for candidate in aligned for table in candidate.tables])
    return tuple(
        Candidate(candidate.name, tuple(replace(table.select(rows), patients=patients) for table in candidate.tables))
        for candidate in aligned
    ), notes


def align(table: PredictionTable, reference: PredictionTable, name: str) -> PredictionTable:
    """Return `table` with its rows in the order of `reference`, matched by study or path.

    Raises:
        RequestError: a row is missing or extra, or labels, patients, split or level differ.
    """
    if (table.split, table.level) != (reference.split, reference.level):
        raise RequestError(
            f"{name} holds the {table.split} split at {table.level} level, but the first table holds "
            f"{reference.split} at {reference.level} level",
            "Compare tables of the same split and level.",
        )
    place = {row_id: row for row, row_id in enumerate(table.ids)}
    unmatched = sorted(set(place) ^ set(reference.ids))
    if unmatched:
        where = f"only in {name}" if unmatched[0] in place else f"missing from {name}"
        raise RequestError(
            f"the rows differ: {unmatched[0]!r} is {where} ({len(unmatched)} unmatched rows)",
            "Make both tables from the same sheet.",
        )
    rows = np.array([place[row_id] for row_id in reference.ids], dtype=np.int64)
    ordered = table.select(rows)
    if ordered.patients != reference.patients:
        row = next(
            n for n, pair in enumerate(zip(ordered.patients, reference.patients, strict=True)) if len({*pair}) > 1
        )
        raise RequestError(
            f"{name} gives {reference.ids[row]!r} to patient {ordered.patients[row]!r}, but the first table gives it "
            f"to {reference.patients[row]!r}",
            "Make both tables from the same sheet, or give both the same column 'patient'.",
        )
    same = (ordered.mask == reference.mask) & (~reference.mask | (ordered.targets == reference.targets))
    if not same.all():
        row, column = np.argwhere(~same)[0]
        raise RequestError(
            f"{name} has a different label for {reference.findings.names[column]} in {reference.ids[row]!r}",
            "Make both tables from the same sheet, with the same --blank.",
        )
    return ordered


def identity(candidate: Candidate, column: int | None) -> tuple[bytes, ...]:
    """Return a key that two candidates share if the scores that count are the same, in one column or in all."""
    columns = slice(None) if column is None else slice(column, column + 1)
    return tuple(
        sorted(np.where(table.mask[:, columns], table.scores[:, columns], 0).tobytes() for table in candidate.tables)
    )


def _with_shared_findings(candidates: Sequence[Candidate]) -> tuple[list[Candidate], tuple[str, ...]]:
    tables = [(candidate.name, table) for candidate in candidates for table in candidate.tables]
    names = [name for name in tables[0][1].findings if all(name in table.findings for _, table in tables)]
    if not names:
        has = "; ".join(f"{candidate.name} has {', '.join(candidate.tables[0].findings)}" for candidate in candidates)
        raise RequestError(f"no finding is in all tables: {has}", "Compare models of the same findings.")
    left_out = {
        candidate.name: sorted({name for table in candidate.tables for name in table.findings} - set(names))
        for candidate in candidates
    }
    notes = tuple(
        f"only findings that all tables have are compared: left out are {', '.join(found)} of {name}"
        for name, found in left_out.items()
        if found
    )
    findings = Findings(tuple(names))
    return [
        Candidate(
            candidate.name,
            tuple(table if table.findings == findings else table.with_findings(findings) for table in candidate.tables),
        )
        for candidate in candidates
    ], notes


def _check_patients_given(candidates: Sequence[Candidate]) -> None:
    given = {one.name: table.patients_given for one in candidates for table in one.tables}
    if len(set(given.values())) > 1:
        without = next(name for name, has_them in given.items() if not has_them)
        having = next(name for name, has_them in given.items() if has_them)
        raise RequestError(
            f"{without} has no column 'patient', but {having} has one",
            f"Add the column to {without}: which studies belong to one patient decides how wide intervals are.",
        )


def _order(tables: Sequence[PredictionTable]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return the order of rows, and a patient for each row in that order, as a number with leading zeros.

    Rows are sorted by labels and scores, patients by their sorted rows. Scores of a finding are first sorted among
    tables, so that the order of the tables hardly ever matters.
    """
    first = tables[0]
    scores = np.stack([np.where(first.mask, table.scores, 0) for table in tables], axis=2)
    flat = (len(first), -1)
    content = np.concatenate(
        [
            first.mask,
            np.where(first.mask, first.targets, 0),
            np.sort(scores, axis=2).reshape(flat),
            scores.reshape(flat),
        ],
        axis=1,
        dtype=np.float64,
    )
    by_content = np.lexsort(content.T[::-1])
    ordered = content[by_content]
    new = np.concatenate(([0], (ordered[1:] != ordered[:-1]).any(axis=1)))
    code = np.empty(len(first), dtype=np.int64)
    code[by_content] = np.cumsum(new)
    rows_of: dict[str, list[int]] = {}
    for row in by_content:
        rows_of.setdefault(first.patients[row], []).append(int(row))
    groups = sorted(rows_of.values(), key=lambda rows: [int(code[row]) for row in rows])
    width = len(str(len(groups)))
    names = tuple(f"{number:0{width}}" for number, rows in enumerate(groups) for _ in rows)
    return np.array([row for rows in groups for row in rows], dtype=np.int64), names
