"""A model as a repository for the Hugging Face hub: the bundle, config.json, and a model card with its figures."""

import shutil
from pathlib import Path

import yaml

from cxrtool.errors import RequestError
from cxrtool.files import replacing, write_json, write_text
from cxrtool.model.bundle import BUNDLE_NAME, Bundle
from cxrtool.model.header import BundleHeader
from cxrtool.report.card import model_card
from cxrtool.report.content import ReportContent


def write_repository(content: ReportContent, bundle: Bundle, folder: Path) -> None:
    """Write model.safetensors, config.json and README.md to a folder, as a repository has them.

    Args:
        content: what is known of the model, with its figures.
        bundle: the model.
        folder: folder to write; it must be empty or not exist.

    Raises:
        RequestError: the folder is not empty.
        WriteError: it cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RequestError(f"{folder} is not an empty folder", "Name another folder.")
    with replacing(folder / BUNDLE_NAME) as partial:
        shutil.copyfile(bundle.path, partial)
    write_json(folder / "config.json", _config(bundle.header))
    write_text(
        folder / "README.md", f"---\n{_front_matter(content, bundle.header)}---\n\n{_card(content, bundle.header)}"
    )


def _config(header: BundleHeader) -> dict[str, object]:
    return {
        "model_type": "densenet121",
        "library_name": "cxrtool",
        "id2label": dict(enumerate(header.findings)),
        "problem_type": "multi_label_classification",
        "preprocessing": header.preprocessing,
        "thresholds": header.effective_thresholds,
        "weights_sha256": header.weights_sha256,
    }


def _front_matter(content: ReportContent, header: BundleHeader) -> str:
    """Return the metadata that the hub reads, as YAML: tags, and the figures as a model-index."""
    evaluation = content.assessment.evaluation
    figures = [("AUROC, mean", evaluation.mean_auroc), ("AUPRC, mean", evaluation.mean_auprc)]
    figures += [(f"AUROC, {finding}", one.auroc) for finding, one in evaluation.labels.items()]
    metrics = [
        {"type": "roc_auc" if name.startswith("AUROC") else "average_precision", "name": name, "value": round(value, 4)}
        for name, value in figures
        if value is not None
    ]
    dataset = {"name": f"{evaluation.split} split ({evaluation.studies} studies)", "type": "chest-radiographs"}
    results = [{"task": {"type": "image-classification"}, "dataset": dataset, "metrics": metrics}]
    front = {
        "library_name": "cxrtool",
        "pipeline_tag": "image-classification",
        "tags": ["chest-x-ray", "densenet121", "research-only"],
        "model-index": [{"name": header.run, "results": results}],
    }
    return str(yaml.safe_dump(front, sort_keys=False, allow_unicode=True))


def _card(content: ReportContent, header: BundleHeader) -> str:
    use = "Use it: `cxr predict IMAGE --model hf:OWNER/NAME` with the name of this repository.\n\n"
    return use + model_card(header, content.assessment, content.study)
