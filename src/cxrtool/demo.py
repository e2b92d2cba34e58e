"""The demo: all steps on synthetic data in minutes.

Phantoms, train, tune, calibrate, eval, localize, predict, explain, report.
"""

import time
from dataclasses import dataclass
from pathlib import Path

from cxrtool.choices import Layer, Method
from cxrtool.data.images import list_images
from cxrtool.errors import CxrError, RequestError
from cxrtool.evaluation.assessment import Assessment
from cxrtool.explain.explanation import picture_name, save_panel
from cxrtool.explain.methods import MapSettings
from cxrtool.files import write_json
from cxrtool.phantoms.dataset import write_phantom
from cxrtool.predict.classifier import Classifier
from cxrtool.predict.csv_table import TableIdentity, open_table
from cxrtool.progress import Progress, ProgressCallback, StopSignal, ignore_progress, never_stop
from cxrtool.report.content import gather
from cxrtool.report.page import write_report
from cxrtool.resolved_settings import load_settings
from cxrtool.settings import ExplainSettings, RuntimeSettings
from cxrtool.tasks.evaluate import evaluate_model
from cxrtool.tasks.localize import LocalizeResult, localize_model
from cxrtool.tasks.tune import calibrate_model, tune_model
from cxrtool.training.loop import train

PATIENTS = 480
IMAGE_SIZE = 96
EPOCHS = 5
MAPS = {"explain.method": Method.LAYER_CAM, "explain.layer": Layer.DENSEBLOCK2}
"""At 96 px the third block has 6 x 6 cells, coarser than most findings: its peaks lie half a cell beside them, and hit
0.36 to 0.46; LayerCAM of the second block, 12 x 12 cells, hits 0.83 (docs/measurements/heatmaps.md)."""
_COMPARED = f"{Method.LAYER_CAM}@{Layer.DENSEBLOCK2},{Method.GRAD_CAM}@{Layer.DENSEBLOCK3}"
_EXPLAINED = 6


@dataclass(frozen=True)
class DemoResult:
    """Result of `run_demo`.

    Attributes:
        folder: folder with all files.
        assessment: assessment of the model on the synthetic test split, at study level.
        thresholds: thresholds by finding, tuned on valid.
        localization: how often heatmaps point at the finding, on test.
        files: files and folders to look at, by description.
        seconds: duration of each step.
    """

    folder: Path
    assessment: Assessment
    thresholds: dict[str, float]
    localization: LocalizeResult
    files: dict[str, Path]
    seconds: dict[str, float]

    def to_dict(self) -> dict[str, object]:
        """Return a dict ready for JSON."""
        return {
            "folder": str(self.folder),
            "test": self.assessment.to_dict(),
            "thresholds": self.thresholds,
            "localization": self.localization.to_dict(),
            "files": {what: str(path) for what, path in self.files.items()},
            "seconds": self.seconds,
        }


class _Clock:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, step: str) -> None:
        now = time.perf_counter()
        self.seconds[step] = round(now - self._last, 1)
        self._last = now


def run_demo(
    out: Path, seed: int = 0, progress: ProgressCallback = ignore_progress, stop: StopSignal = never_stop
) -> DemoResult:
    """Draw synthetic radiographs, train a model on them, and use it like a real one.

    Args:
        out: new or empty folder.
        seed: random seed of the data and of the training.
        progress: called during each step.
        stop: called during training; see `StopSignal`.

    Raises:
        RequestError: `out` is not empty.
    """
    if out.exists() and any(out.iterdir()):
        raise RequestError(f"{out} is not empty", "Give a new folder: cxr demo OUT.")
    clock = _Clock()
    data, run = out / "phantoms", out / "run"
    write_phantom(data, PATIENTS, IMAGE_SIZE, seed, lambda done, total: progress(Progress("phantom", done, total)))
    clock.lap("phantom")
    # Small images and a higher learning rate for random weights; the defaults are for ImageNet weights at 320 px.
    resolved = load_settings(
        {
            "data.root": data,
            "train.init": "none",
            "train.image_size": IMAGE_SIZE,
            "train.epochs": EPOCHS,
            "train.batch_size": 16,
            "train.lr": 1e-3,
            "train.augment": False,
            "train.seed": seed,
            "localize.methods": _COMPARED,
            **MAPS,
        },
        environ={},
    )
    result = train(resolved, run, progress=progress, stop=stop)
    clock.lap("train")
    tuned = tune_model(result.bundle, resolved.settings, progress=progress)
    clock.lap("tune")
    calibrate_model(result.bundle, resolved.settings, tuned.folder / "predictions.csv")
    clock.lap("calibrate")
    evaluated = evaluate_model(result.bundle, resolved.settings, progress=progress)
    clock.lap("eval")
    localized = localize_model(result.bundle, resolved.settings, progress=progress)
    clock.lap("localize")
    runtime = RuntimeSettings()
    classifier = Classifier.load(result.bundle, settings=runtime)
    images = list_images([data / "test"], recursive=True)
    _predict(classifier, images, runtime, out / "predictions.csv")
    clock.lap("predict")
    figures = _explain(classifier, images, resolved.settings.explain, out / "explanations")
    clock.lap("explain")
    write_report(gather(result.bundle, resolved.settings, progress=progress), out / "report.html")
    clock.lap("report")
    files = {
        "report": out / "report.html",
        "synthetic radiographs": data,
        "model": result.bundle,
        "training history": run / "history.csv",
        "thresholds": tuned.folder / "thresholds.csv",
        "test metrics": evaluated.folder / "metrics.csv",
        "predictions": out / "predictions.csv",
        "hit rates of heatmaps": localized.folder / "localization.csv",
        "explanations": figures,
    }
    demo = DemoResult(out, evaluated.assessment, dict(tuned.tuned.thresholds), localized, files, clock.seconds)
    write_json(out / "demo.json", demo.to_dict())
    return demo


def _predict(classifier: Classifier, images: list[Path], settings: RuntimeSettings, out: Path) -> None:
    with open_table(out, iter(images), TableIdentity.of(classifier, settings), str, resume=False) as table:
        for prediction in classifier.predict_many(table.paths):
            table.write(prediction)


def _explain(classifier: Classifier, images: list[Path], settings: ExplainSettings, out: Path) -> Path:
    frontal = [path for path in images if "frontal" in path.name][:_EXPLAINED]
    maps = MapSettings.of(settings, IMAGE_SIZE)
    for path, explanations in classifier.explain_many(frontal, settings=maps, every=True):
        if isinstance(explanations, CxrError):
            raise explanations
        name = picture_name(path)
        for explanation in explanations:
            if explanation.positive:
                explanation.save(out, name)
        save_panel(explanations, out / f"{name}_panel")
    return out
