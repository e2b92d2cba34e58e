"""How far a model's maps can be trusted: measured on images whose truth is known."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxrtool.choices import Layer
from cxrtool.data.dataset import Dataset
from cxrtool.data.manifest import Manifest
from cxrtool.data.truth import Truth, load_truth
from cxrtool.errors import RequestError
from cxrtool.evaluation.localization import (
    LocalizationFigures,
    LocalizedImages,
    border_share,
    choose_map_threshold,
    is_hit,
    localization_figures,
    mean_of,
    overlaps,
)
from cxrtool.explain.faithfulness import deletion_and_insertion, sanity_curve
from cxrtool.explain.methods import MapSettings
from cxrtool.files import write_csv, write_json
from cxrtool.findings import FINDINGS
from cxrtool.model.bundle import Bundle, StoredLocalization, change_header
from cxrtool.model.resolve import Model, open_model
from cxrtool.predict.classifier import Classifier, find_method
from cxrtool.progress import Progress, ProgressCallback, ignore_progress
from cxrtool.settings import ExplainSettings, LocalizeSettings, Settings
from cxrtool.tasks.chexlocalize import ChexlocalizeFiles
from cxrtool.tasks.evaluate import bootstrap_settings
from cxrtool.tasks.localize_cases import Case, Clock, cases_of

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
        export = ChexlocalizeFiles(maps_out) if maps_out is not None and place == 0 else None
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
    export: ChexlocalizeFiles | None,
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
    export: ChexlocalizeFiles | None,
    progress: ProgressCallback,
) -> tuple[dict[str, LocalizedImages], float]:
    """Hits and overlaps by finding, and images a second."""
    found: dict[str, list[tuple[str, bool, NDArray[np.float64], float]]] = {finding: [] for finding in FINDINGS}
    clock = Clock()
    for case in cases_of(classifier, manifest, truth, method, wished, clock, progress):
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


def _faithfulness(
    classifier: Classifier,
    manifest: Manifest,
    truth: Truth,
    method: MapSettings,
    wished: LocalizeSettings,
    progress: ProgressCallback,
) -> tuple[dict[str, float], float, float]:
    """Sanity, deletion and insertion over the first pairs of an image and a finding it shows."""
    pairs: list[tuple[Case, int]] = []
    for case in cases_of(classifier, manifest, truth, method, wished, Clock(), ignore_progress):
        pairs += [(case, column) for column in case.truths]
        if len(pairs) >= wished.faithfulness:
            break
    pairs = pairs[: wished.faithfulness]
    cases = list(dict.fromkeys(case for case, _ in pairs))
    places = {case: place for place, case in enumerate(cases)}
    pixels = classifier.runtime.tensor(np.stack([case.pixels for case in cases])[:, None])
    areas = []
    for done, (case, column) in enumerate(pairs, start=1):
        image = pixels[places[case]][None].float()
        areas.append(deletion_and_insertion(classifier.network, image, column, case.maps[column]))
        progress(Progress(f"{method.title}: insertion and deletion", done, len(pairs)))
    indices = [(places[case], column) for case, column in pairs]
    sanity = sanity_curve(classifier.network, pixels, indices, method)
    deletion, insertion = np.mean(areas, axis=0)
    return sanity, float(deletion), float(insertion)


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
