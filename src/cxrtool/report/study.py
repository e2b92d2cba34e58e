"""One evaluation with everything that a paper says about it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cxrtool.choices import Blank
from cxrtool.data.characteristics import Characteristics
from cxrtool.data.flow import RowFlow
from cxrtool.evaluation.assessment import Assessment
from cxrtool.evaluation.ledger import Look, Looks, looks_at, read_ledger
from cxrtool.evaluation.table import PredictionTable
from cxrtool.model.bundle import Bundle
from cxrtool.model.header import BundleHeader
from cxrtool.settings import DataSettings
from cxrtool.tasks.evaluate import EvalResult


@dataclass(frozen=True)
class Study:
    """An evaluation of a split.

    Attributes:
        table: the predictions.
        assessment: their figures.
        header: header of the model's bundle; None for scores that came without a model.
        flows: from the rows of a sheet to those analysed, by split, where known.
        characteristics: patients, studies and images, by split, where known.
        looks: how often the ledger says that the split was looked at; None if there is no ledger.
        views: which views were used; None if not known.
        blank: what blank labels meant; None if not known.
        i_know: whether ``--i-know`` was given; None if not known.
        engine: backend and precision of the network; None if not known.
        command: the command line; empty if there was none.
    """

    table: PredictionTable
    assessment: Assessment
    header: BundleHeader | None = None
    flows: Mapping[str, RowFlow] = field(default_factory=dict)
    characteristics: Mapping[str, Characteristics] = field(default_factory=dict)
    looks: Looks | None = None
    views: str | None = None
    blank: Blank | None = None
    i_know: bool | None = None
    engine: str | None = None
    command: str = ""

    @property
    def used_blank(self) -> Blank:
        """What blank labels mean for a prevalence: as in the evaluation, else as in training, else negative."""
        if self.blank is not None:
            return self.blank
        return Blank.NEGATIVE if self.header is None else self.header.blank


def study_of_evaluation(bundle: Bundle, result: EvalResult, data: DataSettings, command: str = "") -> Study:
    """Return what is known right after an evaluation; on the other splits, what the run's dataset.json says."""
    folder, split = bundle.path.parent, result.table.split
    flows, characteristics = trained_on(_read(folder / "dataset.json"))
    return Study(
        table=result.table,
        assessment=result.assessment,
        header=bundle.header,
        flows=flows | {split: result.flow},
        characteristics=characteristics | {split: result.characteristics},
        looks=looks_at(read_ledger(folder), split, result.table.sheet_sha256),
        views=data.views.value,
        blank=data.blank,
        i_know=data.i_know,
        engine=str(result.how),
        command=command,
    )


def study_of_files(
    folder: Path, header: BundleHeader | None, table: PredictionTable, assessment: Assessment, command: str = ""
) -> Study:
    """Return what the files of an earlier evaluation say, in the folder of a run; what they do not say is left open."""
    flows, characteristics = trained_on(_read(folder / "dataset.json"))
    metrics = _read(folder / f"eval_{table.split}" / "metrics.json")
    if _mapping(metrics, "model").get("weights_sha256") == table.model_sha256 and table.model_sha256:
        evaluated = trained_on({"splits": {table.split: metrics}})
        flows, characteristics = flows | evaluated[0], characteristics | evaluated[1]
    ledger = read_ledger(folder)
    options = _options(ledger, table)
    blank = options.get("blank")
    backend, precision = metrics.get("backend"), metrics.get("precision")
    return Study(
        table=table,
        assessment=assessment,
        header=header,
        flows=flows,
        characteristics=characteristics,
        looks=looks_at(ledger, table.split, table.sheet_sha256),
        views=options.get("views"),
        blank=Blank(blank) if blank in list(Blank) else None,
        i_know=options.get("i_know"),
        engine=f"{backend}, {precision}" if backend and precision else None,
        command=command,
    )


def _options(ledger: tuple[Look, ...], table: PredictionTable) -> Mapping[str, Any]:
    """Return the options of the last look that made this table, empty if there is none."""
    made = [
        look.options
        for look in ledger
        if look.command in ("eval", "report")
        and (look.split, look.sheet_sha256, look.weights_sha256)
        == (table.split, table.sheet_sha256, table.model_sha256)
    ]
    return made[-1] if made else {}


def trained_on(dataset: Mapping[str, Any]) -> tuple[dict[str, RowFlow], dict[str, Characteristics]]:
    """Return flows and characteristics by split from the content of dataset.json; runs of older versions have none."""
    flows: dict[str, RowFlow] = {}
    characteristics: dict[str, Characteristics] = {}
    for split in _mapping(dataset, "splits"):
        content = _mapping(dataset["splits"], split)
        flow = RowFlow.from_dict(_mapping(content, "flow"))
        found = Characteristics.from_dict(_mapping(content, "characteristics"))
        if flow is not None:
            flows[split] = flow
        if found is not None:
            characteristics[split] = found
    return flows, characteristics


def _mapping(content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = content.get(name)
    return value if isinstance(value, Mapping) else {}


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
