"""From the rows of a sheet to those that are analysed: how many are left out, and why."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self


@dataclass(frozen=True)
class RowFlow:
    """Numbers of rows of a split's sheet: `rows` is the sum of the fields from `repeated` to `images`.

    Attributes:
        rows: rows of the sheet, one per image.
        repeated: rows that repeat the path of an earlier one.
        lateral: rows left out because of a lateral view.
        unknown_view: rows left out because the view cannot be read.
        missing: rows whose image does not exist or is outside the data folder.
        unreadable: rows whose image cannot be decoded.
        images: rows that are analysed.
        studies: distinct studies among these.
        patients: distinct patients among these.
    """

    rows: int
    repeated: int
    lateral: int
    unknown_view: int
    missing: int
    unreadable: int
    images: int
    studies: int
    patients: int

    def analysed(self, images: int, studies: int, patients: int) -> Self:
        """Return the flow to the rows that were read; those missing from `images` count as unreadable."""
        return replace(
            self,
            unreadable=self.unreadable + self.images - images,
            images=images,
            studies=studies,
            patients=patients,
        )

    def to_dict(self) -> dict[str, int]:
        """Return all numbers by name."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self | None:
        """Return the flow that `to_dict` described; None if a number is missing, as in files of older versions."""
        values = {field.name: content.get(field.name) for field in fields(cls)}
        if not all(isinstance(value, int) for value in values.values()):
            return None
        return cls(**values)  # type: ignore[arg-type]  # checked in the line above
