"""Radiographs with known true regions, and a model's maps of the findings that they show."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cxrtool.choices import Fit
from cxrtool.data.batches import Unreadable
from cxrtool.data.manifest import Manifest
from cxrtool.data.radiograph import Radiograph, Reading, radiograph_batches
from cxrtool.data.truth import Truth
from cxrtool.engines.device import sigmoid
from cxrtool.errors import CxrError, ImageError
from cxrtool.explain.explanation import heatmap_of
from cxrtool.explain.methods import Map, MapSettings
from cxrtool.findings import Findings
from cxrtool.predict.classifier import Classifier
from cxrtool.progress import Progress, ProgressCallback
from cxrtool.settings import LocalizeSettings


@dataclass(frozen=True, eq=False)
class Case:
    """One image with its coarse maps and true regions.

    Attributes:
        path: path in the sheet.
        patient: name of the patient.
        image: [H, W] uint8, the whole image.
        pixels: [S, S] uint8, the network's input.
        maps: coarse maps by position of the finding.
        truths: [H, W] bool, true regions by position of the finding.
        probabilities: [F] float32, raw probability of each finding.
        fit: how the image filled the network's input.
    """

    path: str
    patient: str
    image: NDArray[np.uint8]
    pixels: NDArray[np.uint8]
    maps: Mapping[int, Map]
    truths: Mapping[int, NDArray[np.bool_]]
    probabilities: NDArray[np.float32]
    fit: Fit

    def heatmap(self, column: int) -> NDArray[np.float32]:
        """Return the map of a finding at the image's size, scaled so that its peak is 1, [H, W]."""
        height, width = self.image.shape
        return heatmap_of(self.maps[column], height, width, 1.0, fit=self.fit)


class Clock:
    """Counts images and the seconds that the method took, without reading."""

    def __init__(self) -> None:
        self.images, self.seconds = 0, 0.0

    @property
    def rate(self) -> float:
        return self.images / self.seconds if self.seconds else 0.0


def cases_of(
    classifier: Classifier,
    manifest: Manifest,
    truth: Truth,
    method: MapSettings,
    options: LocalizeSettings,
    clock: Clock,
    progress: ProgressCallback,
    skip: Unreadable | None = None,
) -> Iterator[Case]:
    """Yield the images that have true regions, with maps of those findings.

    Raises:
        ImageError: an image cannot be read, and `skip` is None.
        CxrError: more images than `skip` allows cannot be read.
    """
    reading: Reading = replace(classifier.reading, full_size=True)
    total = min(len(manifest), options.limit or len(manifest))
    files = [manifest.file(row) for row in range(total)]
    row = 0
    for batch in radiograph_batches(files, reading):
        truths: list[dict[int, NDArray[np.bool_]]] = []
        good: list[Radiograph] = []
        rows: list[int] = []
        for _, result in batch:
            if isinstance(result, CxrError):
                if skip is None or not isinstance(result, ImageError):
                    advice = "List all unreadable images with: cxr check-data DATA --full. Or use --skip-unreadable."
                    raise type(result)(result.message, advice)
                skip.add(row, result)
                row += 1
                continue
            regions = _truths(truth, classifier.findings, str(manifest.paths[row]), result.image.shape)
            if regions:
                truths.append(regions)
                good.append(result)
                rows.append(row)
            row += 1
        if good:
            began = time.perf_counter()
            logits, maps = _maps(classifier, good, truths, method, options.positives_only)
            clock.seconds += time.perf_counter() - began
            clock.images += len(good)
            probabilities = sigmoid(logits)
            for one, place, found, regions, own in zip(good, rows, maps, truths, probabilities, strict=True):
                kept = {column: region for column, region in regions.items() if column in found}
                path, patient = str(manifest.paths[place]), str(manifest.patients[place])
                yield Case(path, patient, one.image, one.pixels, found, kept, own, reading.preprocessing.fit)
        progress(Progress(f"{method.title} on {manifest.split}", row, total))


def _truths(truth: Truth, findings: Findings, path: str, shape: tuple[int, ...]) -> dict[int, NDArray[np.bool_]]:
    height, width = shape
    found = {column: truth.mask(path, finding, height, width) for column, finding in enumerate(findings)}
    return {column: mask for column, mask in found.items() if mask is not None}


def _maps(
    classifier: Classifier,
    radiographs: Sequence[Radiograph],
    truths: Sequence[Mapping[int, NDArray[np.bool_]]],
    method: MapSettings,
    positives_only: bool,
) -> tuple[NDArray[np.float32], list[dict[int, Map]]]:
    cuts = np.array([classifier.thresholds[finding] for finding in classifier.findings])

    def wanted(logits: NDArray[np.float32]) -> NDArray[np.bool_]:
        chosen = np.array([[column in regions for column in range(len(classifier.findings))] for regions in truths])
        return chosen & (sigmoid(logits).astype(np.float64) >= cuts) if positives_only else chosen

    return classifier.maps_of(radiographs, wanted, method)
