"""Settings of the rows that are read: where they are, which of them are used, and what a blank label means."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

from cxrtool.choices import Blank, LayoutName, Views
from cxrtool.errors import RequestError
from cxrtool.findings import PRESETS, Findings, parse_findings
from cxrtool.sheet_options import FilesBySplit, SheetColumns

Fraction = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A group of settings: immutable, and no setting may be misspelt."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataSettings(Section):
    """Which rows of the sheets are used, and what a blank label means."""

    root: Path | None = Field(default=None, description="Data folder in CheXpert's layout.")
    sheet: str | None = Field(
        default=None,
        description="Sheet with the rows: FILE, divided by a column split, or train=FILE,valid=FILE,test=FILE. "
        "If not given: those of the data folder.",
    )
    columns: str | None = Field(
        default=None,
        description="Columns of the sheet, as path=Image,patient=PID,label:Edema=oedema; also study, view, projection, "
        "sex, age, split, labels (one column of names) and separator. If not given: known names.",
    )
    labels: str | None = Field(
        default=None,
        description="File of labels, joined by path or study, that replace those of the sheet: FILE or train=FILE. "
        "If not given: those of the sheet.",
    )
    layout: LayoutName = Field(
        default=LayoutName.AUTO,
        description="Public data set whose files the data folder holds; auto goes by their names.",
    )
    findings: str = Field(
        default="chexpert5",
        description="Findings to read: chexpert5, chexpert14, nih14, or names separated by commas.",
    )
    views: Views = Field(
        default=Views.FRONTAL, description="Which radiographs to use: frontal views only, or all views."
    )
    blank: Blank = Field(
        default=Blank.NEGATIVE, description="Meaning of a blank label: negative, or ignored in loss and metrics."
    )
    max_missing: Fraction = Field(
        default=0.01, description="Stop if more than this share of the rows has no image file."
    )
    skip_unreadable: bool = Field(
        default=False,
        description="Leave out images that cannot be read, at most the share --max-missing of a split, and list them.",
    )
    i_know: bool = Field(
        default=False,
        description="Continue although test data would be used to choose something, or a patient is in two splits. "
        "The bundle or report records it.",
    )
    allow_outside: bool = Field(
        default=False,
        description="Follow links that lead out of the data folder. Absolute paths and .. in a sheet stay forbidden.",
    )
    cache: bool | None = Field(
        default=None, description="Keep decoded pixels on disk and read those. On if a cache folder is given, else off."
    )
    cache_dir: Path | None = Field(
        default=None, description="Folder of the pixel cache. If not given: .cxr-cache in the data folder."
    )

    @field_validator("findings")
    @classmethod
    def _findings_parse(cls, text: str) -> str:
        _check(parse_findings, text)
        return text.strip().lower() if text.strip().lower() in PRESETS else ",".join(parse_findings(text))

    @field_validator("sheet", "labels")
    @classmethod
    def _files_parse(cls, text: str | None) -> str | None:
        _check(FilesBySplit.parse, text)
        return text

    @field_validator("columns")
    @classmethod
    def _columns_parse(cls, text: str | None) -> str | None:
        _check(SheetColumns.parse, text)
        return text

    @property
    def sheet_files(self) -> FilesBySplit | None:
        """The files that `sheet` names; None if it is not given."""
        return None if self.sheet is None else FilesBySplit.parse(self.sheet)

    @property
    def label_files(self) -> FilesBySplit:
        """The files that `labels` names."""
        return FilesBySplit() if self.labels is None else FilesBySplit.parse(self.labels)

    @property
    def sheet_columns(self) -> SheetColumns:
        """The parsed columns."""
        return SheetColumns() if self.columns is None else SheetColumns.parse(self.columns)

    @property
    def label_names(self) -> Findings:
        """The findings to read, in order."""
        return parse_findings(self.findings)

    @property
    def folder(self) -> Path:
        """The data folder.

        Raises:
            RequestError: no data folder is given.
        """
        if self.root is None:
            raise RequestError("no data folder is given", "Name it with --data.")
        return self.root

    @property
    def uses_cache(self) -> bool:
        """Whether images are read through the pixel cache."""
        return self.cache_dir is not None if self.cache is None else self.cache


def _check(parse: Callable[[str], object], text: str | None) -> None:
    """Turn the errors of a parser into those that pydantic collects."""
    try:
        if text is not None:
            parse(text)
    except RequestError as error:
        raise ValueError(f"{error.message}; {error.advice}") from None
