"""``cxr info``"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cxrtool.cells import UNDEFINED, cell
from cxrtool.cli import console
from cxrtool.cli.inputs import chosen_model
from cxrtool.cli.options import JsonOption
from cxrtool.resolved_settings import load_settings

if TYPE_CHECKING:
    from cxrtool.model.header import SplitDigest, StoredGolden


def info(
    model: Annotated[
        Path | None, typer.Argument(help="Run folder, bundle file, or table (.csv). \\[default: the newest run]")
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Print what a bundle records: policy, thresholds, training, data, metrics and versions.

    Of a CSV file it says whether it is a table of cxr eval or of cxr predict.

    \b
    cxr info runs/my-run
    cxr info model.safetensors --json
    cxr info predictions.csv
    """
    if model is not None and model.suffix.lower() == ".csv":
        _show_table(model, json_output)
        return
    from cxrtool.evaluation.ledger import all_looks, read_ledger
    from cxrtool.model.bundle import read_header

    path = chosen_model(load_settings({"model": model}, origin="command line"))
    header = read_header(path)
    content = header.model_dump(mode="json")
    looks = all_looks(read_ledger(path.parent))
    if json_output:
        console.print_json({"path": str(path)} | content | {"evaluations": [one.to_dict() for one in looks]})
        return
    console.print_facts(
        str(path),
        {
            "run": header.run,
            "created": header.created,
            "architecture": header.architecture,
            "policy": header.policy,
            "image size": f"{header.image_preprocessing.image_size} px, {header.image_preprocessing.resizing}",
            "views": header.views,
            "trained on": _split_line(header.data, "train"),
            "chosen on": _split_line(header.data, "valid"),
            "best epoch": str(header.metrics.get("epoch")),
            "thresholds": "tuned" if header.thresholds else "0.5 each (not tuned; see cxr tune)",
            "tuned on": f"{header.tuning.split}, {header.tuning.criterion}" if header.tuning else None,
            "calibration": f"{header.calibration.method} on {header.calibration.split}" if header.calibration else None,
            "maps measured": ", ".join(one.method for one in header.localization) or None,
            "golden images": _golden_line(header.golden),
            **{f"{one.split} looked at (sheet {one.sheet_sha256[:12]})": one.short() for one in looks},
            "weights sha256": header.weights_sha256,
            "versions": ", ".join(f"{name} {number}" for name, number in header.versions.items()),
            "use": header.intended_use,
        },
    )
    console.print_table(
        "findings (valid, at the best epoch)",
        ["finding", "threshold", "AUROC", "AUPRC"],
        [
            [finding, cell(threshold, 2), *(_figure(header.metrics, finding, name) for name in ("auroc", "auprc"))]
            for finding, threshold in header.effective_thresholds.items()
        ],
    )
    for one in looks:
        if (warning := one.warning()) is not None:
            console.warn(warning)


def _golden_line(golden: "StoredGolden | None") -> str:
    if golden is None:
        return "none (see cxr verify --record)"
    return f"{len(golden.logits)}, by {golden.engine} in {golden.precision} (see cxr verify)"


def _show_table(path: Path, json_output: bool) -> None:
    from cxrtool.evaluation.table_kind import describe_table

    table = describe_table(path)
    if json_output:
        console.print_json(table.to_dict())
        return
    facts = {"table": table.kind.value, "rows": table.rows, "columns": ", ".join(table.columns)}
    console.print_facts(str(path), facts)
    console.say(f"This is {table.meaning}.")


def _figure(metrics: Mapping[str, Any], finding: str, name: str) -> object:
    """Return a figure, or None: imported bundles have none, and untrusted ones may hold anything."""
    found: Any = metrics
    for key in ("valid", "labels", finding, name):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def _split_line(data: Mapping[str, "SplitDigest"], split: str) -> str:
    digest = data.get(split)
    if digest is None:
        return UNDEFINED
    return f"{digest.images} images, {digest.patients} patients ({digest.sheet}, {digest.sheet_sha256[:12]})"


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("info")(info)
