"""Measurement of a model's heatmaps on images whose true regions are known."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxrtool.choices import Layer
from cxrtool.data.batches import skip_list
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
from cxrtool.model.bundle import Bundle, update_header
from cxrtool.model.header import BundleHeader, StoredLocalization
from cxrtool.model.resolve import Model, open_model
from cxrtool.predict.classifier import Classifier, find_method
from cxrtool.predict.split import record_split
from cxrtool.progress import Progress, ProgressCallback, ignore_progress
from cxrtool.settings import ExplainSettings, Settings
from cxrtool.tasks.chexlocalize import ChexlocalizeFiles
from cxrtool.tasks.evaluate import bootstrap_settings
from cxrtool.tasks.localize_cases import Case, Clock, cases_of

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MethodResult:
    """Figures of one heatmap method.

    Attributes:
        figures: hit rate and overlap by finding.
        images_per_second: speed without the time to read images.
        sanity: mean rank correlation with the maps of a randomised network, by step; empty if not requested.
        deletion: mean area under the deletion curve, lower is better; None if not requested.
        insertion: mean area under the insertion curve, higher is better; None if not requested.
    """

    figures: Mapping[str, LocalizationFigures]
    images_per_second: float
    sanity: Mapping[str, float]
    deletion: float | None
    insertion: float | None

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
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
    """Result of `localize_model`.

    Attributes:
        methods: figures by title of the method.
        split: name of the split.
        truth: name of the masks or boxes that the maps were compared with.
        folder: folder with localization.json and localization.csv.
        warnings: notes on how maps were cut.
    """

    methods: Mapping[str, MethodResult]
    split: str
    truth: str
    folder: Path
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, object]:
        """Return the document of ``cxr localize --json``."""
        return {
            "split": self.split,
            "truth": self.truth,
            "methods": {title: one.to_dict() for title, one in self.methods.items()},
            "warnings": list(self.warnings),
        }


def parse_methods(text: str, options: ExplainSettings, image_size: int) -> tuple[MapSettings, ...]:
    """Parse a list such as ``grad-cam,layer-cam@denseblock2``; all other settings of maps come from `options`.

    Raises:
        RequestError: a method or layer is unknown.
    """
    found = []
    for part in text.split(","):
        name, _, layer = part.strip().partition("@")
        if layer and layer not in list(Layer):
            raise RequestError(f"layer {layer!r} is unknown", f"The layers are {', '.join(Layer)}.")
        own = replace(MapSettings.of(options, image_size), method=find_method(name))
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
    """Compare heatmaps with true regions, and store each method's figures in the bundle.

    Args:
        model: an opened bundle, a run folder or a bundle file.
        settings: data, split, methods and device.
        masks: a folder of masks or CheXlocalize's JSON file; None uses ``masks/`` in the data folder.
        boxes: a CSV file of boxes, instead of masks.
        out: output folder; None uses ``localize_<split>`` beside the model.
        maps_out: folder for the first method's maps in CheXlocalize's layout; None writes none.
        progress: called as images are done.

    Raises:
        RequestError: there are no data or no true regions, or no image of the split has one.
    """
    options = settings.localize
    bundle = open_model(model)
    dataset = Dataset(settings.data, findings=bundle.header.labels, partial=True)
    manifest = dataset.usable(options.split)
    truth = load_truth(manifest.root, masks, boxes)
    classifier = Classifier.load(bundle, settings=settings.runtime.for_maps, raw=True)
    results: dict[str, MethodResult] = {}
    warnings: list[str] = []
    size = classifier.header.image_preprocessing.image_size
    for place, method in enumerate(parse_methods(options.methods, settings.explain, size)):
        cuts, notes = _map_thresholds(classifier, settings, dataset, truth, method, progress)
        warnings += [text for text in notes if text not in warnings]
        export = ChexlocalizeFiles(maps_out, classifier.findings) if maps_out is not None and place == 0 else None
        results[method.title] = _measure(classifier, manifest, truth, method, cuts, settings, export, progress)
        if export is not None:
            export.finish()
    if not any(figure.images for one in results.values() for figure in one.figures.values()):
        raise RequestError(
            f"{truth.name} has no true region for any image of {options.split}",
            "Check that its paths or names are those of the sheet.",
        )
    folder = out or bundle.path.parent / f"localize_{options.split}"
    result = LocalizeResult(results, options.split, truth.name, folder, tuple(warnings))
    _write(result)
    _store(bundle, result, manifest)
    record_split(bundle, settings, manifest, "localize", out)
    return result


def _map_thresholds(
    classifier: Classifier,
    settings: Settings,
    dataset: Dataset,
    truth: Truth,
    method: MapSettings,
    progress: ProgressCallback,
) -> tuple[dict[str, float | None], list[str]]:
    """Return the threshold of each finding's maps, chosen on valid, or None for Otsu's; and notes on the choice."""
    options = settings.localize
    otsu: dict[str, float | None] = dict.fromkeys(classifier.findings)
    if options.otsu:
        return otsu, []
    if options.split == "valid" or "valid" not in dataset.available:
        return otsu, ["maps are cut at Otsu's threshold, because there is no other split on which to choose one"]
    measured, _ = _localize(classifier, dataset.usable("valid"), truth, method, settings, None, progress)
    chosen = {finding: choose_map_threshold(one) for finding, one in measured.items()}
    without = ", ".join(finding for finding, cut in chosen.items() if cut is None)
    note = f"maps of {without} are cut at Otsu's threshold, because valid has no true regions of that finding"
    return chosen, [note] if without else []


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
    options = settings.localize
    measured, speed = _localize(classifier, manifest, truth, method, settings, export, progress)
    draws = bootstrap_settings(settings.eval)
    figures = {finding: localization_figures(one, cuts[finding], draws) for finding, one in measured.items()}
    sanity: Mapping[str, float] = {}
    deletion = insertion = None
    if options.faithfulness:
        sanity, deletion, insertion = _faithfulness(classifier, manifest, truth, method, settings, progress)
    return MethodResult(figures, speed, sanity, deletion, insertion)


def _localize(
    classifier: Classifier,
    manifest: Manifest,
    truth: Truth,
    method: MapSettings,
    settings: Settings,
    export: ChexlocalizeFiles | None,
    progress: ProgressCallback,
) -> tuple[dict[str, LocalizedImages], float]:
    """Return hits and overlaps by finding, and images per second."""
    found: dict[str, list[tuple[str, bool, NDArray[np.float64], float]]] = {
        finding: [] for finding in classifier.findings
    }
    clock, options = Clock(), settings.localize
    skip = skip_list(manifest.split, len(manifest), settings.data)
    for case in cases_of(classifier, manifest, truth, method, options, clock, progress, skip):
        for column, region in case.truths.items():
            heatmap = case.heatmap(column)
            found[classifier.findings.names[column]].append(
                (
                    case.patient,
                    is_hit(heatmap, region),
                    overlaps(heatmap, region, options.fill_holes, options.positives_only),
                    border_share(heatmap),
                )
            )
        if export is not None:
            export.add(case)
    return {finding: _stack(rows) for finding, rows in found.items()}, clock.rate


def _stack(rows: Sequence[tuple[str, bool, NDArray[np.float64], float]]) -> LocalizedImages:
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
    settings: Settings,
    progress: ProgressCallback,
) -> tuple[dict[str, float], float, float]:
    """Compute sanity, deletion and insertion over the first pairs of an image and a finding that it shows."""
    pairs: list[tuple[Case, int]] = []
    options, skip = settings.localize, skip_list(manifest.split, len(manifest), settings.data)
    for case in cases_of(classifier, manifest, truth, method, options, Clock(), ignore_progress, skip):
        pairs += [(case, column) for column in case.truths]
        if len(pairs) >= options.faithfulness:
            break
    pairs = pairs[: options.faithfulness]
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
    """Store the figures in the bundle, where they replace older ones of the same method."""
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

    def with_new(header: BundleHeader) -> BundleHeader:
        kept = tuple(one for one in header.localization if one.method not in result.methods)
        return header.model_copy(update={"localization": kept + new})

    update_header(bundle, with_new)
