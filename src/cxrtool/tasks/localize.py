"""How far a model's maps can be trusted: measured on images whose truth is known."""

import logging
import pickle
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxrtool.choices import Layer
from cxrtool.data.dataset import Dataset
from cxrtool.data.manifest import Manifest
from cxrtool.data.radiograph import Radiograph, Reading, radiograph_batches
from cxrtool.data.rle import encode_rle
from cxrtool.data.truth import CHEXLOCALIZE_TASKS, Truth, chexlocalize_id, load_truth
from cxrtool.engines.device import sigmoid
from cxrtool.errors import CxrError, RequestError
from cxrtool.evaluation.localization import (
    LocalizationFigures,
    LocalizedImages,
    border_share,
    choose_map_threshold,
    is_hit,
    localization_figures,
    mean_of,
    otsu_threshold,
    overlaps,
    stretched,
)
from cxrtool.explain.explanation import heatmap_of
from cxrtool.explain.faithfulness import deletion_and_insertion, sanity_curve
from cxrtool.explain.methods import Map, MapSettings
from cxrtool.files import write_bytes, write_csv, write_json
from cxrtool.findings import FINDINGS
from cxrtool.model.bundle import Bundle, StoredLocalization, change_header
from cxrtool.model.resolve import Model, open_model
from cxrtool.predict.classifier import Classifier, find_method
from cxrtool.progress import Progress, ProgressCallback, ignore_progress
from cxrtool.settings import ExplainSettings, LocalizeSettings, Settings
from cxrtool.tasks.evaluate import bootstrap_settings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MethodResult:
    """What one method is worth.

    Attributes:
        figures: by finding.
        images_per_second: reading left out.
        sanity: mean rank correlation with the maps of a randomised network, by step; empty where not asked for.
        deletion: mean area, lower is better; None where not asked for.
        insertion: mean area, higher is better; likewise.
    """

    figures: Mapping[str, LocalizationFigures]
    images_per_second: float
    sanity: Mapping[str, float]
    deletion: float | None
    insertion: float | None

    def to_dict(self) -> dict[str, object]:
        """Plain values."""
        return {
            "labels": {finding: one.to_dict() for finding, one in self.figures.items()},
            "mean": {name: mean_of(self.figures, name) for name in ("hit_rate", "iou")},
            "images_per_second": self.images_per_second,
            "sanity": dict(self.sanity),
            "deletion": self.deletion,
            "insertion": self.insertion,
        }


@dataclass(frozen=True)
class LocalizeResult:
    """What `localize_model` came to.

    Attributes:
        methods: by their title.
        split: measured on.
        truth: what it was measured against.
        folder: where localization.json and localization.csv lie.
        warnings: what to beware of.
    """

    methods: Mapping[str, MethodResult]
    split: str
    truth: str
    folder: Path
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, object]:
        """As ``cxr localize --json`` prints it."""
        return {
            "split": self.split,
            "truth": self.truth,
            "methods": {title: one.to_dict() for title, one in self.methods.items()},
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True)
class _Case:
    """One image, its coarse maps and its truths, by position of the finding."""

    path: str
    patient: str
    image: NDArray[np.uint8]
    pixels: NDArray[np.uint8]
    maps: Mapping[int, Map]
    truths: Mapping[int, NDArray[np.bool_]]

    def heatmap(self, column: int) -> NDArray[np.float32]:
        """The map at the image's size, its peak 1."""
        height, width = self.image.shape
        return heatmap_of(self.maps[column], height, width, 1.0)


def parse_methods(text: str, wished: ExplainSettings, image_size: int) -> tuple[MapSettings, ...]:
    """``grad-cam,layer-cam@denseblock2`` as settings of maps, in all else as `wished`.

    Raises:
        RequestError: a method or layer is unknown.
    """
    found = []
    for part in text.split(","):
        name, _, layer = part.strip().partition("@")
        if layer and layer not in list(Layer):
            raise RequestError(f"layer {layer!r} is unknown", f"The layers are {', '.join(Layer)}.")
        own = replace(MapSettings.of(wished, image_size), method=find_method(name))
        found.append(replace(own, layer=Layer(layer)) if layer else own)
    return tuple(found)


def localize_model(
    model: Model,
    settings: Settings,
    masks: Path | None = None,
    boxes: Path | None = None,
    out: Path | None = None,
    maps_out: Path | None = None,
    progress: ProgressCallback = ignore_progress,
) -> LocalizeResult:
    """Measure maps against the truth, and store each method's figures in the bundle.

    Args:
        model: an opened bundle, a run folder or a bundle file.
        settings: data, split, methods and machine.
        masks: a folder of masks or CheXlocalize's JSON; ``masks/`` in the data folder unless given.
        boxes: a CSV of boxes instead.
        out: folder; ``localize_<split>`` beside the model unless given.
        maps_out: write the first method's maps there as CheXlocalize's evaluator reads them.
        progress: called as images are done.

    Raises:
        RequestError: there is no data or truth, or no image of the split has a truth.
    """
    wished = settings.localize
    bundle = open_model(model)
    dataset = Dataset(settings.data)
    manifest = dataset.usable(wished.split)
    truth = load_truth(manifest.root, masks, boxes)
    classifier = Classifier.load(bundle, settings=settings.runtime.for_maps, raw=True)
    results: dict[str, MethodResult] = {}
    warnings: list[str] = []
    size = classifier.header.image_preprocessing.image_size
    for place, method in enumerate(parse_methods(wished.methods, settings.explain, size)):
        cuts, told = _map_thresholds(classifier, settings, dataset, truth, method, progress)
        warnings += [text for text in told if text not in warnings]
        export = _Export(maps_out) if maps_out is not None and place == 0 else None
        results[method.title] = _measure(classifier, manifest, truth, method, cuts, settings, export, progress)
        if export is not None:
            export.finish()
    if not any(figure.images for one in results.values() for figure in one.figures.values()):
        raise RequestError(
            f"no image of {wished.split} has a truth in {truth.name}", "Check that the paths or names are the same."
        )
    folder = out or bundle.path.parent / f"localize_{wished.split}"
    result = LocalizeResult(results, wished.split, truth.name, folder, tuple(warnings))
    _write(result)
    _store(bundle, result, manifest)
    return result


def _map_thresholds(
    classifier: Classifier,
    settings: Settings,
    dataset: Dataset,
    truth: Truth,
    method: MapSettings,
    progress: ProgressCallback,
) -> tuple[dict[str, float | None], list[str]]:
    """Where to cut each finding's maps: chosen on valid, else None for Otsu's threshold."""
    wished = settings.localize
    otsu: dict[str, float | None] = dict.fromkeys(FINDINGS)
    if wished.otsu:
        return otsu, []
    if wished.split == "valid" or "valid" not in dataset.available:
        return otsu, ["maps are cut by Otsu's threshold: there is no other split to choose one on"]
    measured, _ = _localize(classifier, dataset.usable("valid"), truth, method, wished, None, progress)
    chosen = {finding: choose_map_threshold(one) for finding, one in measured.items()}
    lacking = [finding for finding, cut in chosen.items() if cut is None]
    told = [f"maps of {', '.join(lacking)} are cut by Otsu's threshold: valid has no truth of it"] if lacking else []
    return chosen, told


def _measure(
    classifier: Classifier,
    manifest: Manifest,
    truth: Truth,
    method: MapSettings,
    cuts: Mapping[str, float | None],
    settings: Settings,
    export: "_Export | None",
    progress: ProgressCallback,
) -> MethodResult:
    wished = settings.localize
    measured, speed = _localize(classifier, manifest, truth, method, wished, export, progress)
    draws = bootstrap_settings(settings.eval)
    figures = {finding: localization_figures(one, cuts[finding], draws) for finding, one in measured.items()}
    sanity: Mapping[str, float] = {}
    deletion = insertion = None
    if wished.faithfulness:
        sanity, deletion, insertion = _faithfulness(classifier, manifest, truth, method, wished, progress)
    return MethodResult(figures, speed, sanity, deletion, insertion)


def _localize(
    classifier: Classifier,
    manifest: Manifest,
    truth: Truth,
    method: MapSettings,
    wished: LocalizeSettings,
    export: "_Export | None",
    progress: ProgressCallback,
) -> tuple[dict[str, LocalizedImages], float]:
    """Hits and overlaps by finding, and images a second."""
    found: dict[str, list[tuple[str, bool, NDArray[np.float64], float]]] = {finding: [] for finding in FINDINGS}
    clock = _Clock()
    for case in _cases(classifier, manifest, truth, method, wished, clock, progress):
        for column, region in case.truths.items():
            heatmap = case.heatmap(column)
            found[FINDINGS[column]].append(
                (case.patient, is_hit(heatmap, region), overlaps(heatmap, region), border_share(heatmap))
            )
        if export is not None:
            export.add(case)
    return {finding: _gathered(rows) for finding, rows in found.items()}, clock.rate


def _gathered(rows: Sequence[tuple[str, bool, NDArray[np.float64], float]]) -> LocalizedImages:
    return LocalizedImages(
        patients=tuple(row[0] for row in rows),
        hits=np.array([row[1] for row in rows], dtype=np.bool_),
        overlaps=np.stack([row[2] for row in rows]) if rows else np.zeros((0, 0)),
        border=np.array([row[3] for row in rows], dtype=np.float64),
    )


class _Clock:
    """Images and seconds of the method alone."""

    def __init__(self) -> None:
        self.images, self.seconds = 0, 0.0

    @property
    def rate(self) -> float:
        return self.images / self.seconds if self.seconds else 0.0


def _cases(
    classifier: Classifier,
    manifest: Manifest,
    truth: Truth,
    method: MapSettings,
    wished: LocalizeSettings,
    clock: _Clock,
    progress: ProgressCallback,
) -> Iterator[_Case]:
    """The images that have a truth, with maps of the findings it shows."""
    reading: Reading = replace(classifier.reading, whole=True)
    total = min(len(manifest), wished.limit or len(manifest))
    files = [manifest.file(row) for row in range(total)]
    row = 0
    for batch in radiograph_batches(files, reading):
        truths: list[dict[int, NDArray[np.bool_]]] = []
        good: list[Radiograph] = []
        rows: list[int] = []
        for _, result in batch:
            if isinstance(result, CxrError):
                raise type(result)(result.message, "Find all such files with: cxr check-data DATA --full.")
            regions = _truths(truth, str(manifest.paths[row]), result.image.shape)
            if regions:
                truths.append(regions)
                good.append(result)
                rows.append(row)
            row += 1
        if good:
            began = time.perf_counter()
            maps = _maps(classifier, good, truths, method, wished.positives_only)
            clock.seconds += time.perf_counter() - began
            clock.images += len(good)
            for one, place, found, regions in zip(good, rows, maps, truths, strict=True):
                kept = {column: region for column, region in regions.items() if column in found}
                path, patient = str(manifest.paths[place]), str(manifest.patients[place])
                yield _Case(path, patient, one.image, one.pixels, found, kept)
        progress(Progress(f"{method.title} on {manifest.split}", row, total))


def _truths(truth: Truth, path: str, shape: tuple[int, ...]) -> dict[int, NDArray[np.bool_]]:
    height, width = shape
    found = {column: truth.mask(path, finding, height, width) for column, finding in enumerate(FINDINGS)}
    return {column: mask for column, mask in found.items() if mask is not None}


def _maps(
    classifier: Classifier,
    radiographs: Sequence[Radiograph],
    truths: Sequence[Mapping[int, NDArray[np.bool_]]],
    method: MapSettings,
    positives_only: bool,
) -> list[dict[int, Map]]:
    cuts = np.array([classifier.thresholds[finding] for finding in FINDINGS])

    def wanted(logits: NDArray[np.float32]) -> NDArray[np.bool_]:
        chosen = np.array([[column in regions for column in range(len(FINDINGS))] for regions in truths])
        return chosen & (sigmoid(logits).astype(np.float64) >= cuts) if positives_only else chosen

    return classifier.maps_of(radiographs, wanted, method)[1]


def _faithfulness(
    classifier: Classifier,
    manifest: Manifest,
    truth: Truth,
    method: MapSettings,
    wished: LocalizeSettings,
    progress: ProgressCallback,
) -> tuple[dict[str, float], float, float]:
    """Sanity, deletion and insertion over the first pairs of an image and a finding it shows."""
    pairs: list[tuple[_Case, int]] = []
    for case in _cases(classifier, manifest, truth, method, wished, _Clock(), ignore_progress):
        pairs += [(case, column) for column in case.truths]
        if len(pairs) >= wished.faithfulness:
            break
    pairs = pairs[: wished.faithfulness]
    cases = list({id(case): case for case, _ in pairs}.values())
    places = {id(case): place for place, case in enumerate(cases)}
    pixels = classifier.runtime.tensor(np.stack([case.pixels for case in cases])[:, None])
    areas = []
    for done, (case, column) in enumerate(pairs, start=1):
        image = pixels[places[id(case)]][None].float()
        areas.append(deletion_and_insertion(classifier.network, image, column, case.maps[column]))
        progress(Progress(f"{method.title}: insertion and deletion", done, len(pairs)))
    indices = [(places[id(case)], column) for case, column in pairs]
    sanity = sanity_curve(classifier.network, pixels, indices, method)
    deletion, insertion = np.mean(areas, axis=0)
    return sanity, float(deletion), float(insertion)


class _Export:
    """Maps as CheXlocalize's evaluator reads them.

    For the overlap pred_segmentations.json, with every task it asks for (empty where this model has none); for the hit
    rate a pickle per map, which is its format. cxrtool writes those and never reads one.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._segmentations: dict[str, dict[str, Any]] = {}

    def add(self, case: _Case) -> None:
        """Keep one image's maps, cut by Otsu's threshold as theirs are."""
        import torch

        height, width = case.image.shape
        empty = np.zeros((height, width), dtype=np.bool_)
        tasks: dict[str, Any] = {task: encode_rle(empty) for task in CHEXLOCALIZE_TASKS}
        name = chexlocalize_id(case.path)
        for column, coarse in case.maps.items():
            finding = FINDINGS[column]
            heatmap = stretched(case.heatmap(column))
            tasks[finding] = encode_rle((heatmap > otsu_threshold(heatmap)) if heatmap.any() else empty)
            content = {"map": torch.from_numpy(coarse)[None, None], "cxr_dims": (width, height), "task": finding}
            write_bytes(self._folder / "maps" / f"{name}_{finding}_map.pkl", pickle.dumps(content))
        self._segmentations[name] = tasks

    def finish(self) -> None:
        """Write what was kept."""
        write_json(self._folder / "pred_segmentations.json", self._segmentations)


def _write(result: LocalizeResult) -> None:
    write_json(result.folder / "localization.json", result.to_dict())
    header = ["method", "finding", "images", "hit_rate", "hit_low", "hit_high", "iou", "iou_low", "iou_high"]
    rows = [
        [
            title,
            finding,
            one.images,
            one.hit_rate,
            one.hit_interval.low,
            one.hit_interval.high,
            one.iou,
            one.iou_interval.low,
            one.iou_interval.high,
            one.map_threshold,
            one.border,
        ]
        for title, method in result.methods.items()
        for finding, one in method.figures.items()
    ]
    write_csv(result.folder / "localization.csv", [*header, "map_threshold", "border"], rows)


def _store(bundle: Bundle, result: LocalizeResult, manifest: Manifest) -> None:
    """Put the figures into the bundle, in the place of older ones of the same method."""
    new = tuple(
        StoredLocalization(
            method=title,
            truth=result.truth,
            split=result.split,
            sheet_sha256=manifest.sheet_sha256,
            images={finding: one.images for finding, one in method.figures.items()},
            hit_rate={f: one.hit_rate for f, one in method.figures.items() if one.hit_rate is not None},
            iou={finding: one.iou for finding, one in method.figures.items() if one.iou is not None},
        )
        for title, method in result.methods.items()
    )
    kept = tuple(one for one in bundle.header.localization if one.method not in result.methods)
    change_header(bundle, localization=kept + new)
