"""Ledger of the evaluations of a model: one line of JSON for each time that a split was looked at.

A test split gives figures that hold for new patients only as long as nothing is chosen by them. The ledger, a file
beside the bundle, makes visible how often it was looked at, and with how many different models.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO

from cxrtool.files import json_ready
from cxrtool.locks import changing

log = logging.getLogger(__name__)

LEDGER_NAME = "evaluations.jsonl"


@dataclass(frozen=True)
class Look:
    """One evaluation of a split.

    Attributes:
        time: in UTC, ISO 8601.
        command: what ran the model, such as ``eval``.
        split: name of the split.
        sheet_sha256: digest of its sheet.
        rows_sha256: digest of the rows, see `digest_of_rows`.
        images: number of images.
        studies: number of distinct studies.
        patients: number of distinct patients.
        weights_sha256: digest of the model's weights.
        version: version of cxrtool.
        options: settings of the evaluation, by name.
        out: folder of the output, where the user chose one, else None.
    """

    time: str
    command: str
    split: str
    sheet_sha256: str
    rows_sha256: str
    images: int
    studies: int
    patients: int
    weights_sha256: str
    version: str
    options: Mapping[str, Any]
    out: str | None = None


def digest_of_rows(ids: Iterable[str]) -> str:
    """Return the SHA-256, in hex, of the sorted ids of rows with a line feed after each; their order does not count."""
    text = "".join(f"{row}\n" for row in sorted(ids))
    return hashlib.sha256(text.encode("utf-8", errors="surrogateescape")).hexdigest()


def record_look(folder: Path, look: Look) -> None:
    """Append a line to the ledger in `folder`. A folder that cannot be written gives a warning, not an error."""
    path = folder / LEDGER_NAME
    line = json.dumps(json_ready(asdict(look)), ensure_ascii=True, allow_nan=False)
    try:
        with changing(path), path.open("a+b") as file:
            file.write(_separator(file) + line.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        log.warning(
            "cannot write %s (%s): this look at the %s split is not recorded", path, error.strerror or error, look.split
        )


def _separator(file: BinaryIO) -> bytes:
    """Return a line feed if the last line of a file was cut off, else nothing."""
    if file.seek(0, os.SEEK_END) == 0:
        return b""
    file.seek(-1, os.SEEK_END)
    return b"" if file.read(1) == b"\n" else b"\n"


def read_ledger(folder: Path) -> tuple[Look, ...]:
    """Read the ledger in `folder`, the oldest line first; empty if there is none.

    A line that cannot be read, such as one cut off by a power failure, is left out with a warning.
    """
    path = folder / LEDGER_NAME
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ()
    except OSError as error:
        log.warning("cannot read %s: %s", path, error.strerror or error)
        return ()
    lines = [line for line in text.splitlines() if line.strip()]
    found = [look for look in map(_parse, lines) if look is not None]
    if len(found) < len(lines):
        log.warning("%s: %d of %d lines cannot be read", path, len(lines) - len(found), len(lines))
    return tuple(found)


def _parse(line: str) -> Look | None:
    try:
        content = json.loads(line)
    except ValueError:
        return None
    if not isinstance(content, dict):
        return None
    values = {field.name: content.get(field.name) for field in fields(Look)}
    right = all(isinstance(value, _TYPES.get(name, str)) for name, value in values.items())
    return Look(**values) if right else None  # type: ignore[arg-type]  # types were checked


_TYPES: dict[str, Any] = {
    "images": int,
    "studies": int,
    "patients": int,
    "options": Mapping,
    "out": str | None,
}
"""Of the fields that do not hold text."""


@dataclass(frozen=True)
class Looks:
    """How often a split with a given sheet was looked at.

    Attributes:
        split: name of the split.
        sheet_sha256: digest of its sheet.
        count: number of evaluations.
        first: time of the first one.
        last: time of the last one.
        weights: number of different weights among them.
        rows: number of different sets of rows among them.
        commands: number of evaluations by command.
    """

    split: str
    sheet_sha256: str
    count: int
    first: str
    last: str
    weights: int
    rows: int
    commands: Mapping[str, int]

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        return asdict(self)

    def short(self) -> str:
        """Return ``3 times, 2026-01-05 to 2026-02-01, with 2 different weights``."""
        first, last = self.first[:10], self.last[:10]
        when = first if first == last else f"{first} to {last}"
        weights = f", with {self.weights} different weights" if self.weights > 1 else ""
        return f"{_times(self.count)}, {when}{weights}"

    def sentence(self) -> str:
        """Say how often the split was looked at, and by which commands."""
        commands = ", ".join(f"{command} {count}" for command, count in self.commands.items())
        return (
            f"The {self.split} split (sheet {self.sheet_sha256[:12]}) has been looked at {self.short()} "
            f"(by command: {commands}), as the ledger beside the model records."
        )

    def warning(self) -> str | None:
        """Return a warning if a test split was looked at with several models of one folder, else None."""
        if self.split != "test" or self.weights < 2:
            return None
        return (
            f"the test split was looked at with {self.weights} different weights from this folder: if a model was "
            "chosen by these figures, they are too good"
        )


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def looks_at(ledger: Sequence[Look], split: str, sheet_sha256: str) -> Looks | None:
    """Summarise the evaluations of a split with this sheet; None if there are none."""
    found = [look for look in ledger if look.split == split and look.sheet_sha256 == sheet_sha256]
    if not found:
        return None
    commands = [look.command for look in found]
    return Looks(
        split=split,
        sheet_sha256=sheet_sha256,
        count=len(found),
        first=min(look.time for look in found),
        last=max(look.time for look in found),
        weights=len({look.weights_sha256 for look in found}),
        rows=len({look.rows_sha256 for look in found}),
        commands={command: commands.count(command) for command in dict.fromkeys(commands)},
    )


def all_looks(ledger: Sequence[Look]) -> tuple[Looks, ...]:
    """Summarise the evaluations by split and sheet, in the order in which these were first looked at."""
    keys = dict.fromkeys((look.split, look.sheet_sha256) for look in ledger)
    return tuple(looks for split, sheet in keys if (looks := looks_at(ledger, split, sheet)) is not None)
