"""What ``--sheet``, ``--labels`` and ``--columns`` say, parsed once: files by split, and columns by meaning."""

import csv
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from cxrtool.errors import RequestError
from cxrtool.findings import canonical

SPLITS = ("train", "valid", "test")
MEANINGS = ("path", "patient", "study", "view", "projection", "sex", "age", "split", "labels")
"""What a column may be named for, besides ``separator`` and ``label:NAME``."""
_SEPARATORS = {"tab": "\t", "comma": ",", "semicolon": ";", "space": " "}


@dataclass(frozen=True)
class FilesBySplit:
    """One file for all splits, or a file for each of some splits.

    Attributes:
        single: the one file; None if files are given by split.
        by_split: files by ``train``, ``valid`` and ``test``.
    """

    single: Path | None = None
    by_split: Mapping[str, Path] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse ``FILE``, or ``train=FILE,valid=FILE,test=FILE`` with one or more of these.

        Raises:
            RequestError: a split is named twice, or has no file.
        """
        parts = [part.strip() for part in text.split(",")]
        if not parts[0].startswith(tuple(f"{split}=" for split in SPLITS)):
            if not text.strip():
                raise RequestError("the name of a file is empty", "Name a file.")
            return cls(Path(text.strip()))
        found: dict[str, Path] = {}
        for part in parts:
            split, _, name = part.partition("=")
            if split not in SPLITS or not name:
                raise RequestError(f"{part!r} is not a split and its file", "Write it as train=FILE,valid=FILE.")
            if split in found:
                raise RequestError(f"two files are given for {split}", "Give one file for each split.")
            found[split] = Path(name)
        return cls(None, found)

    def of(self, split: str) -> Path | None:
        """Return the file with the rows of a split; None if there is none."""
        return self.single or self.by_split.get(split)


@dataclass(frozen=True)
class SheetColumns:
    """Columns of a sheet by meaning, where they are not found by their usual names.

    Attributes:
        by_meaning: name of the column of each of `MEANINGS` that was given.
        findings: name of the column of each finding that was given, by the name used here.
        separator: what separates names in the column of labels.
    """

    by_meaning: Mapping[str, str] = field(default_factory=dict)
    findings: Mapping[str, str] = field(default_factory=dict)
    separator: str = "|"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse ``path=Image,patient=PID,label:Edema=edema_yn``; a name with a comma stands in quotes, as in CSV.

        Raises:
            RequestError: a part is not ``meaning=column``, its meaning is unknown, or stands twice.
        """
        meanings: dict[str, str] = {}
        findings: dict[str, str] = {}
        separator = "|"
        for part in next(csv.reader([text], skipinitialspace=True), []):
            meaning, equals, column = part.partition("=")
            key, column = meaning.strip(), column if meaning.strip() == "separator" else column.strip()
            if not equals or not column:
                raise RequestError(f"column {part!r} has no name", "Write it as path=Image or label:Edema=edema_yn.")
            if key in meanings or (key == "separator" and separator != "|"):
                raise RequestError(f"{key} is given twice", "Give one column for each.")
            if key.startswith("label:") and key[6:].strip():
                name = canonical(key[6:])
                if name in findings:
                    raise RequestError(f"two columns are given for {name}", "Give one column for each finding.")
                findings[name] = column
            elif key == "separator":
                separator = _SEPARATORS.get(column.strip().lower(), column)
            elif key in MEANINGS:
                meanings[key] = column
            else:
                near = difflib.get_close_matches(key, MEANINGS, n=1)
                hint = f"Did you mean {near[0]!r}? " if near else ""
                allowed = ", ".join((*MEANINGS, "separator"))
                raise RequestError(f"{key!r} is no meaning of a column", f"{hint}Use {allowed} or label:FINDING.")
        return cls(meanings, findings, separator)

    def __bool__(self) -> bool:
        return bool(self.by_meaning or self.findings or self.separator != "|")
