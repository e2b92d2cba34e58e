"""Tables of scores that another program wrote, joined with a table of labels.

Nothing is assumed about names: the column that identifies a row, the findings and the patients are found by name, and
every problem in every file is reported at once.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrtool.choices import Blank, Level
from cxrtool.data.identity import ALIASES
from cxrtool.data.sheets import columns_by_meaning, plain_name
from cxrtool.data.text_file import TextFile, read_text_file
from cxrtool.errors import RequestError, SheetError
from cxrtool.evaluation.score_keys import EXAMPLES, Matched, Texts, identity_of, match_keys, names_image
from cxrtool.evaluation.table import PredictionTable
from cxrtool.findings import CHEXPERT5, Findings

KEYS = (
    "study",
    "path",
    "image index",
    "image id",
    "dicom id",
    "study id",
    "image",
    "filename",
    "file name",
    "id",
    "key",
)
"""Names of the column that identifies a row, in the order in which they are looked for."""
_LABELS = {"1": 1.0, "0": 0.0, "-1": -1.0, "1.0": 1.0, "0.0": 0.0, "-1.0": -1.0, "true": 1.0, "false": 0.0, "": np.nan}
_SHOWN = 10


@dataclass(frozen=True)
class JoinSettings:
    """How tables are joined.

    Attributes:
        key: column that identifies a row; None finds it by `KEYS`.
        renames: new name by name of a column, for findings that the two files call differently.
        split: split that the rows belong to.
        blank: meaning of a blank label.
        attributes: columns of the table of labels to keep, for subgroups; ``sex``, ``age`` and ``projection`` are found
            under other names too.
    """

    key: str | None = None
    renames: Mapping[str, str] = field(default_factory=dict)
    split: str = "test"
    blank: Blank = Blank.NEGATIVE
    attributes: tuple[str, ...] = ()


@dataclass(frozen=True)
class JoinedScores:
    """A table of scores with labels.

    Attributes:
        table: scores and labels.
        notes: what was assumed, and what was left out.
    """

    table: PredictionTable
    notes: tuple[str, ...]


def parse_renames(texts: Iterable[str]) -> dict[str, str]:
    """Parse ``Effusion=Pleural Effusion``: the name in a file, then the name to use.

    Raises:
        RequestError: a text has no equals sign, or an empty name.
    """
    found = {}
    for text in texts:
        name, _, new = (part.strip() for part in text.partition("="))
        if not (name and new):
            raise RequestError(f"--map {text!r} names no two findings", "Write it as 'Effusion=Pleural Effusion'.")
        found[name] = new
    return found


def join_scores(scores: Sequence[Path], truth: Path, settings: JoinSettings) -> list[JoinedScores]:
    """Read tables of scores and join each with the same table of labels.

    Args:
        scores: files that `read_text_file` reads, with a column that identifies rows and columns named after findings,
            ``FINDING``, ``FINDING probability`` or ``FINDING score``.
        truth: likewise, with labels 1, 0, -1 (uncertain, which does not count) or blank.
        settings: how they are joined.

    Returns:
        For each file a table with the rows of `truth`, in its order, of those findings that all files have. Scores that
        are not all in [0, 1] give a table whose scores are not probabilities.

    Raises:
        RequestError: a file cannot be read, has no such columns, lacks rows, has a row twice, or has a cell that is no
            label or no score. The message lists the problems of all files.
    """
    problems: list[str] = []
    files = [file for path in (truth, *scores) if (file := _opened(path, problems)) is not None]
    if problems:
        raise _refusal(problems)
    labels, *rest = (_Keyed(file, settings, problems) for file in files)
    if problems:
        raise _refusal(problems)
    findings = _shared_findings(labels, rest, problems)
    tables = [_join(labels, one, findings, settings, problems) for one in rest] if findings else []
    if problems:
        raise _refusal(problems)
    return [table for table in tables if table is not None]


def _opened(path: Path, problems: list[str]) -> TextFile | None:
    try:
        return read_text_file(path)
    except SheetError as error:
        problems.append(f"{error.message}. {error.advice}")
        return None


def _refusal(problems: Sequence[str]) -> RequestError:
    shown = "; ".join(problems[:_SHOWN])
    more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    advice = "Fix the files; --key names the column that identifies rows, --map OTHER=FINDING renames findings."
    return RequestError(f"{shown}{more}".rstrip("."), advice)


class _Keyed:
    """A file whose rows are identified.

    Attributes:
        file: the file.
        names: name of each finding's column, by the plain form of the name to use.
        keys: [N] text.
        frame: the columns of `names` and of attributes.
    """

    def __init__(self, file: TextFile, settings: JoinSettings, problems: list[str]) -> None:
        self.file = file
        self.column = _key_column(file, settings.key, problems)
        self.names = _columns_by_finding(file, settings.renames, self.column)
        self.keys: Texts = np.zeros(0, dtype=object)
        if self.column is None:
            return
        self.frame = file.columns(file.header)
        self.keys = self.frame[self.column].map(str.strip).to_numpy(dtype=object)
        _check_keys(self, problems)

    def line(self, row: int) -> int:
        return int(self.file.lines[row])


def _key_column(file: TextFile, wanted: str | None, problems: list[str]) -> str | None:
    plain = {plain_name(name): name for name in reversed(file.header)}
    for name in KEYS if wanted is None else (wanted,):
        if plain_name(name) in plain:
            return plain[plain_name(name)]
    what = "no column that identifies rows, such as Study or Path" if wanted is None else f"no column {wanted!r}"
    problems.append(f"{file.path} has {what}; it has {_listed(file.header)}")
    return None


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return ", ".join(names[:20]) + more


def _columns_by_finding(file: TextFile, renames: Mapping[str, str], key: str | None) -> dict[str, str]:
    """Return the columns that may hold findings, by the plain form of the name to use."""
    new = {plain_name(name): name_to_use for name, name_to_use in renames.items()}
    found: dict[str, str] = {}
    for column in file.header:
        if column != key:
            found.setdefault(plain_name(new.get(plain_name(column), column)), column)
    return found


def _score_column(names: Mapping[str, str], finding: str) -> str | None:
    for suffix in ("probability", "score", ""):
        if f"{finding}{suffix}" in names:
            return names[f"{finding}{suffix}"]
    return None


def _shared_findings(labels: _Keyed, rest: Sequence[_Keyed], problems: list[str]) -> dict[str, str]:
    """Return the findings that the table of labels and all tables of scores have: plain form and name."""
    known = {plain_name(name): name for name in CHEXPERT5}
    shared = {
        plain: known.get(plain, column)
        for plain, column in labels.names.items()
        if all(_score_column(one.names, plain) is not None for one in rest) and _holds_labels(labels.frame[column])
    }
    if not shared:
        columns = "; ".join(f"{one.file.path.name} has {_listed(one.file.header)}" for one in (labels, *rest))
        problems.append(f"the files share no column of labels and scores: {columns}")
    if set(shared.values()) == set(CHEXPERT5):
        return {plain_name(name): name for name in CHEXPERT5}
    return shared


def _holds_labels(column: "pd.Series[str]") -> bool:
    """Return whether most distinct cells are labels, so that a wrong cell is an error and an age no finding."""
    distinct = [str(text).strip().casefold() for text in column.unique()]
    labels = sum(text in _LABELS for text in distinct)
    return labels >= 1 and labels * 2 >= len(distinct)


def _check_keys(one: _Keyed, problems: list[str]) -> None:
    blank = np.flatnonzero(one.keys == "")
    if len(blank):
        problems.append(f"{one.file.path} line {one.line(int(blank[0]))} has no {one.column}")
    codes, _ = pd.factorize(one.keys)
    first = np.unique(codes, return_index=True)[1]
    twice = np.setdiff1d(np.arange(len(codes)), first)
    if len(twice):
        row = int(twice[0])
        earlier = int(np.flatnonzero(codes == codes[row])[0])
        problems.append(
            f"{one.file.path} has {one.keys[row]!r} in lines {one.line(earlier)} and {one.line(row)}"
            + (f" ({len(twice)} rows are repeated)" if len(twice) > 1 else "")
        )


def _numbers(one: _Keyed, column: str, problems: list[str]) -> NDArray[np.float64]:
    values = pd.to_numeric(one.frame[column].map(str.strip), errors="coerce").to_numpy(dtype=np.float64)
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        problems.append(_cells(one, column, wrong, "a score is a finite number"))
    return values


def _labels(one: _Keyed, column: str, problems: list[str]) -> NDArray[np.float64]:
    codes, spellings = pd.factorize(one.frame[column])
    values = np.array([_LABELS.get(str(text).strip().casefold(), np.inf) for text in spellings], dtype=np.float64)[
        codes
    ]
    wrong = np.flatnonzero(np.isinf(values))
    if len(wrong):
        problems.append(_cells(one, column, wrong, "a label is 1, 0, -1 or blank"))
    return values


def _cells(one: _Keyed, column: str, rows: NDArray[np.int64], rule: str) -> str:
    examples = ", ".join(f"line {one.line(int(row))} {one.frame[column].iloc[int(row)]!r}" for row in rows[:EXAMPLES])
    more = f" and {len(rows) - EXAMPLES} more" if len(rows) > EXAMPLES else ""
    return f"{one.file.path} column {column!r}: {examples}{more} ({rule})"


def _join(
    labels: _Keyed, one: _Keyed, findings: Mapping[str, str], settings: JoinSettings, problems: list[str]
) -> JoinedScores | None:
    columns = [(labels.names[plain], _score_column(one.names, plain) or "") for plain in findings]
    raw = np.column_stack([_labels(labels, column, problems) for column, _ in columns])
    scores = np.column_stack([_numbers(one, column, problems) for _, column in columns])
    matched = match_keys(labels.keys, one.keys)
    if isinstance(matched, str):
        problems.append(f"{one.file.path}: {matched} of {labels.file.path}")
        return None
    if problems:
        return None
    table = _table(labels, one, raw, scores, matched, findings, settings)
    return JoinedScores(table, _notes(labels, one, table, scores, matched))


def _notes(
    labels: _Keyed, one: _Keyed, table: PredictionTable, scores: NDArray[np.float64], matched: Matched
) -> tuple[str, ...]:
    name, found = one.file.path.name, []
    if matched.how:
        found.append(f"{name}: rows are matched {matched.how}")
    spare = int((matched.scores < 0).sum())
    if spare:
        found.append(f"{name}: {spare} rows have no label in {labels.file.path.name} and are left out")
    if not table.patients_given:
        found.append(
            f"{labels.file.path.name} names no patients, so that intervals take each row as a patient of its own"
        )
    if not table.are_probabilities:
        row, column = (int(place) for place in np.argwhere((scores < 0) | (scores > 1))[0])
        found.append(
            f"{name}: scores are not probabilities ({table.findings.names[column]} is {scores[row, column]:g} in line "
            f"{one.line(row)}), so there are figures of ranks only"
        )
    return tuple(found)


def _table(
    labels: _Keyed,
    one: _Keyed,
    raw: NDArray[np.float64],
    scores: NDArray[np.float64],
    matched: Matched,
    findings: Mapping[str, str],
    settings: JoinSettings,
) -> PredictionTable:
    label_groups, score_groups, keys = matched.labels, matched.scores, matched.keys
    shape = (len(keys), len(findings))
    counts = raw != -1
    if settings.blank is Blank.IGNORE:
        counts &= ~np.isnan(raw)
    targets, mask = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=np.bool_)
    np.maximum.at(targets, label_groups, np.where(counts & (raw == 1), 1, 0).astype(np.float32))
    np.logical_or.at(mask, label_groups, counts)
    used = score_groups >= 0
    largest = np.full(shape, -np.inf)
    np.maximum.at(largest, score_groups[used], scores[used])
    first = np.unique(label_groups, return_index=True)[1]
    originals = labels.keys[first]
    identities = [identity_of(str(key)) for key in originals]
    is_image = len(keys) == len(labels.keys) and all(names_image(str(key)) for key in originals)
    patients, given = _patients(labels, first, identities)
    studies = tuple(study or str(key) for (study, _), key in zip(identities, originals, strict=True))
    return PredictionTable(
        ids=tuple(str(key) for key in (originals if is_image else studies)),
        patients=patients,
        studies=studies,
        images=np.bincount(score_groups[used], minlength=len(keys)).astype(np.int64),
        split=settings.split,
        level=Level.IMAGE if is_image else Level.STUDY,
        sheet_sha256=labels.file.sha256,
        model_sha256=one.file.sha256,
        scores=largest,
        targets=targets,
        mask=mask,
        attributes=_attributes(labels, first, settings.attributes),
        findings=Findings(tuple(findings.values())),
        are_probabilities=bool(((largest >= 0) & (largest <= 1)).all()),
        patients_given=given,
    )


def _patients(
    labels: _Keyed, rows: NDArray[np.int64], identities: Sequence[tuple[str, str]]
) -> tuple[tuple[str, ...], bool]:
    """Return the patient of each row, and whether a column or the key names them; if not, each row is a patient."""
    named = columns_by_meaning(labels.file.header, ALIASES).get("patient", ())
    if named:
        cells = labels.frame[named[0]].to_numpy(dtype=object)[rows]
        if (cells != "").all():
            return tuple(str(cell).strip() for cell in cells), True
    if all(patient for _, patient in identities):
        return tuple(patient for _, patient in identities), True
    return tuple(str(key) for key in labels.keys[rows]), False


def _attributes(labels: _Keyed, rows: NDArray[np.int64], wanted: Sequence[str]) -> dict[str, tuple[str, ...]]:
    named: Mapping[str, Any] = columns_by_meaning(labels.file.header, ALIASES)
    by_plain = {plain_name(column): column for column in labels.file.header}
    found = {}
    for attribute in wanted:
        column = next(iter(named.get(attribute, ())), by_plain.get(plain_name(attribute)))
        if column is not None:
            found[attribute] = tuple(str(cell).strip() for cell in labels.frame[column].to_numpy(dtype=object)[rows])
    return found
