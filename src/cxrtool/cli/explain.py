"""``cxr explain``"""

import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cxrtool.cli import console
from cxrtool.cli.help_text import OUTPUT
from cxrtool.cli.inputs import InputPaths, load_classifier
from cxrtool.cli.options import MAPS, READING, RUNTIME, JsonOption, settings_options
from cxrtool.errors import CxrError, RequestError
from cxrtool.progress import Progress
from cxrtool.resolved_settings import ResolvedSettings
from cxrtool.text import counted, printable

if TYPE_CHECKING:
    from cxrtool.explain.explanation import Explanation
    from cxrtool.settings import ExplainSettings


@settings_options(
    "model",
    "explain.method",
    *MAPS,
    "explain.alpha",
    "explain.stretch",
    "explain.contour",
    "explain.figure_format",
    *RUNTIME,
    *READING,
    "runtime.batch_size",
)
def explain(
    resolved: ResolvedSettings,
    inputs: Annotated[list[Path], typer.Argument(help="Images, folders, or - for a list of paths on stdin.")],
    label: Annotated[
        str | None,
        typer.Option("--label", help="Finding to explain. \\[default: every positive one, or else the most probable]"),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Output folder of the pictures.", rich_help_panel=OUTPUT)] = Path(
        "explanations"
    ),
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Search subfolders too.")] = False,
    thresholds: Annotated[
        str | None,
        typer.Option(
            "--thresholds",
            help="Five thresholds (0.46,0.11,0.47,0.34,0.37) or a file with them. \\[default: the bundle's]",
        ),
    ] = None,
    panel: Annotated[
        bool, typer.Option("--panel", help="Explain all five findings, and show them side by side in one picture.")
    ] = False,
    json_output: JsonOption = False,
) -> None:
    """Show where the model looked: a heatmap, an overlay and a side-by-side figure per image and finding.

    Their names begin with patient, study and view where the path names them, else with the file's name and a digest of
    its path, so that no picture replaces that of another image.

    \b
    cxr explain image.jpg --label "Pleural Effusion"
    cxr explain folder --recursive --out maps --method layer-cam
    cxr explain image.jpg --panel --contour
    """
    from cxrtool.data.read_ahead import read_ahead
    from cxrtool.explain.methods import MapSettings

    if panel and label is not None:
        raise RequestError(
            "--panel shows all findings and cannot be combined with --label", "Leave out one of the two."
        )
    paths = list(InputPaths(inputs, recursive))
    names = unique_names(paths)
    classifier = load_classifier(resolved, thresholds, for_maps=True)
    options = resolved.settings.explain
    maps = MapSettings.of(options, classifier.header.image_preprocessing.image_size)
    found = classifier.explain_many(paths, label, maps, panel, options.stretch)
    rows: list[dict[str, Any]] = []

    def save(named: "tuple[str, tuple[Path, tuple[Explanation, ...] | CxrError]]") -> dict[str, Any]:
        name, (path, result) = named
        if isinstance(result, CxrError):
            why = {"error": str(result), "error_code": result.code}
            return {"path": str(path), **why, "warnings": [], "explanations": []}
        return {"path": str(path), "error": None, "error_code": None} | _saved(result, out, name, options, panel)

    # Threads draw and compress the pictures. Few work ahead, because more would compete with the network's.
    workers = max(2, resolved.settings.runtime.reading_threads)
    with console.progress_bar() as progress:
        for _, row in read_ahead(
            zip(names, found, strict=True), save, workers, workers + 1, name_of=lambda one: one[0]
        ):
            if isinstance(row, CxrError):
                raise row
            rows.append(row)
            progress(Progress("explain", len(rows), len(paths)))
    _show(rows, out, json_output)
    if any(row["error"] for row in rows):
        raise typer.Exit(1)


def _saved(
    explanations: "tuple[Explanation, ...]", out: Path, name: str, options: "ExplainSettings", panel: bool
) -> dict[str, Any]:
    rows = []
    for one in explanations:
        if not one.heatmap.any():
            console.warn(f"{one.path}: the map of {one.label} is zero everywhere")
        files = one.save(out, name, options.alpha, options.contour, options.figure_format)
        rows.append(
            {
                "label": one.label,
                "probability": one.probability,
                "threshold": one.threshold,
                "positive": one.positive,
                "method": one.method,
                "peak": one.peak,
                "box": one.box(),
                "files": {kind: str(path) for kind, path in files.items()},
            }
        )
    warnings = [{"code": warning.code, "message": warning.message} for warning in explanations[0].warnings]
    warnings += [
        {"code": "zero-map", "message": f"the map of {one.label} is zero everywhere"}
        for one in explanations
        if not one.heatmap.any()
    ]
    saved: dict[str, Any] = {"warnings": warnings, "explanations": rows}
    if panel:
        from cxrtool.explain.explanation import save_panel

        path = save_panel(explanations, out / f"{name}_panel", options.alpha, options.contour, options.figure_format)
        saved["panel"] = str(path)
    return saved


def unique_names(paths: list[Path]) -> list[str]:
    """Return `picture_name` for each file; those that are equal get a digest of the path."""
    from cxrtool.explain.explanation import path_digest, picture_name

    names = [picture_name(path) for path in paths]
    times = Counter(names)
    return [
        name if times[name] == 1 else f"{name}-{path_digest(Path(os.path.abspath(path)))}"
        for name, path in zip(names, paths, strict=True)
    ]


def _show(rows: list[dict[str, Any]], out: Path, json_output: bool) -> None:
    if json_output:
        console.print_json({"explanations": rows})
        return
    for row in rows:
        if row["error"]:
            console.say(printable(f"{row['path']}: error: {row['error']}"))
        for warning in row["warnings"]:
            console.say(printable(f"{row['path']}: warning, {warning['code']}: {warning['message']}"))
        for item in row["explanations"]:
            mark = "positive" if item["positive"] else "negative"
            console.say(
                f"{row['path']}: {item['label']} {item['probability']:.3f} (threshold {item['threshold']:.2f}, {mark})"
            )
    pictures = sum(len(row["explanations"]) for row in rows)
    console.say(f"{counted(pictures, 'figure')} with heatmap and overlay in {out}")


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("explain")(explain)
