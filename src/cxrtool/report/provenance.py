"""Report sections on training, mistakes, data and settings."""

import base64
import io
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cxrtool.cells import cell, exact
from cxrtool.report import plots
from cxrtool.report.content import ReportContent
from cxrtool.report.methods_text import methods_of
from cxrtool.report.parts import Picture, Section
from cxrtool.report.population import (
    characteristics_table,
    describe_flow,
    flow_size,
    flow_table,
    paint_flow,
)
from cxrtool.report.study import Study
from cxrtool.report.table import Cell, Number, Table


def history_section(content: ReportContent) -> Section | None:
    """Return the section with a row per epoch; None for a bundle without its run folder."""
    if not content.history or content.header is None:
        return None
    epoch = content.header.metrics.get("epoch")
    best = epoch if isinstance(epoch, int) else 0
    rows: list[list[Cell]] = [
        # Learning rates may be smaller than the digits of the other figures.
        [exact(value) if name == "learning_rate" else value for name, value in asdict(record).items()]
        for record in content.history
    ]
    header = [name.replace("_", " ") for name in asdict(content.history[0])]
    table = Table("Epochs", header, rows, "history")
    return Section("history", "Training history", (), [table], [plots.history_chart(content.history, best)])


def mistakes_section(content: ReportContent) -> Section | None:
    """Return the section with the most confident mistakes and their heatmaps."""
    found = content.mistakes
    if found is None and content.header is None:
        return None
    if found is None:
        text = "The images are not available; give --data to show them."
        return Section("mistakes", "Most confident mistakes", (text,))
    rows: list[list[Cell]] = [
        [one.finding, one.kind, one.study, one.rank, one.probability, Number(one.threshold, 2)]
        for one in found.mistakes
    ]
    header = ["finding", "kind", "study", "rank", "probability", "threshold"]
    pictures = [
        Picture(
            _thumbnail(found.pictures[place]),
            f"Radiograph of {one.study} with the heatmap of {one.finding}, a {one.kind.replace('-', ' ')}",
            (
                f"{one.finding}: {one.kind.replace('-', ' ')}",
                one.study,
                f"probability {one.probability:.3f}, threshold {one.threshold:.2f}",
            ),
        )
        for place, one in enumerate(found.mistakes)
        if place in found.pictures
    ]
    text = "The most confident first, by raw probability. Heatmaps are those of the mistaken finding."
    return Section(
        "mistakes", "Most confident mistakes", (text,), [Table("Mistakes", header, rows, "mistakes", 3)], (), pictures
    )


def _thumbnail(path: Path, side: int = 256) -> str:
    from PIL import Image

    with Image.open(path) as picture:
        picture.thumbnail((side, side))
        data = io.BytesIO()
        picture.convert("RGB").save(data, format="JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()


def data_section(content: ReportContent) -> Section:
    """Return the section on the data used to train, choose and report the model."""
    rows: list[list[Cell]] = [
        [
            split,
            digest.sheet,
            digest.images,
            digest.patients,
            digest.studies,
            digest.sheet_sha256[:16],
        ]
        for split, digest in ({} if content.header is None else content.header.data).items()
    ]
    table = content.table
    evaluation = content.assessment.evaluation
    reported: list[Cell] = [
        f"{table.split} (reported)",
        "",
        evaluation.images,
        content.assessment.patients,
        evaluation.studies,
        table.sheet_sha256[:16],
    ]
    header = ["split", "sheet", "images", "patients", "studies", "sheet SHA-256"]
    tables = [Table("Data", header, [*rows, reported], "data", 2)]
    labels: list[list[Cell]] = [
        [split, finding, *(counts[name] for name in ("positives", "negatives", "ignored"))]
        for split, digest in content.dataset.get("splits", {}).items()
        for finding, counts in digest["labels"].items()
    ]
    if labels:
        header = ["split", "finding", "positives", "negatives", "ignored"]
        tables.append(Table("Labels after the policy", header, labels, "labels", 2))
    return Section("data", "Data", (), tables)


def settings_section(content: ReportContent) -> Section | None:
    """Return the section with the settings of the run and the versions of libraries and weights."""
    if content.header is None:
        return None
    flat: list[list[Cell]] = list(_flatten(content.settings or {"train": content.header.training}))
    versions: list[list[Cell]] = [[name, number] for name, number in content.header.versions.items()]
    versions.append(["weights SHA-256", content.header.weights_sha256])
    versions.append(["created", content.header.created])
    return Section(
        "settings",
        "Settings and versions",
        (),
        [
            Table("Settings of the run", ["setting", "value"], flat, "settings", 2),
            Table("Versions", ["what", "version"], versions, "versions", 2),
        ],
    )


def participants_section(study: Study) -> Section | None:
    """Return the section with the flow of rows and the characteristics of the splits; None if neither is known."""
    tables = [
        table
        for table in (flow_table(study.flows), characteristics_table(study.characteristics, study.used_blank))
        if table is not None
    ]
    if not tables:
        return None
    charts = []
    if study.flows:
        size = flow_size(study.flows, 2.9 * max(len(study.flows), 2))
        charts.append(
            plots.chart_of(
                "From rows to patients", describe_flow(study.flows), lambda axes: paint_flow(axes, study.flows), size
            )
        )
    notes = [note for table in tables for note in table.notes]
    return Section("participants", "Participants", notes, tables, charts)


def methods_section(study: Study) -> Section:
    """Return the section with the methods in the words of a paper."""
    methods = methods_of(study)
    paragraphs = [text.replace("`", "") for text in methods.paragraphs]
    sources = [f"[{number}] {text}" for number, text in enumerate(methods.references, 1)]
    return Section("methods", "Methods", [*paragraphs, *sources])


def _flatten(tree: Any, prefix: str = "") -> Iterable[list[Cell]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield [
                f"{prefix}{key}",
                exact(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else cell(value),
            ]
