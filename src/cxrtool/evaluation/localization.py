"""Localization figures of heatmaps: hit rate and overlap with the true region, with intervals over patients.

The protocol of CheXlocalize (Saporta et al. 2022, Nature Machine Intelligence 4:867): an image counts for a finding
if its true region is not empty; a map is a hit if its highest pixel lies in that region; the overlap is the one of the
region and the map cut at a threshold, Otsu's or one chosen on valid. Details follow eval.py and
heatmap_to_segmentation_probability_threshold.py of github.com/rajpurkarlab/cheXlocalize (commits 0e45730 and 2bc27cb):
levels for Otsu are truncated to 0 to 255, pixels above a threshold belong to the region, holes are filled for Otsu's
threshold, and a map without any region has an overlap of 0, or none where only positives count (`true_pos_only`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cxrtool.evaluation.intervals import BootstrapSettings, Interval, PatientDraws, number_patients, percentile_interval
from cxrtool.evaluation.rates import rate_interval

MAP_THRESHOLDS = np.round(np.arange(1, 20) / 20, 2)
"""Thresholds at which a map may be cut, as shares of its range."""


def stretched(heatmap: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rescale a map [H, W] to [0, 1] by its own range, as CheXlocalize does before cutting; zeros if it is constant."""
    low, high = float(heatmap.min()), float(heatmap.max())
    if high <= low:
        return np.zeros_like(heatmap)
    scaled: NDArray[np.float32] = ((heatmap - low) / (high - low)).astype(np.float32)
    return scaled


def is_hit(heatmap: NDArray[np.float32], truth: NDArray[np.bool_]) -> bool:
    """Return whether the highest pixel lies in the true region; a map of zeros is a miss."""
    if not heatmap.any():
        return False
    return bool(truth[np.unravel_index(int(heatmap.argmax()), heatmap.shape)])


def otsu_threshold(heatmap: NDArray[np.float32]) -> float:
    """Return Otsu's threshold (1979) of a map in [0, 1], over 256 levels; pixels above it belong to the region."""
    levels = (heatmap * np.float32(255)).astype(np.uint8)
    level, _ = cv2.threshold(levels, 0, 255, cv2.THRESH_OTSU)
    # A level is the part of a pixel below the point; so pixels of the next level begin at its number.
    return float(np.nextafter(np.float32((level + 1) / 255), np.float32(0)))


def without_holes(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return a region with its holes filled, as CheXlocalize draws it from its contours."""
    outlines, _ = cv2.findContours(region.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    drawn = np.zeros(region.shape, dtype=np.uint8)
    cv2.drawContours(drawn, outlines, -1, 1, cv2.FILLED)
    filled: NDArray[np.bool_] = drawn > 0
    return filled


def intersection_over_union(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Return the overlap of two regions, in [0, 1]; NaN if both are empty."""
    union = int((first | second).sum())
    return int((first & second).sum()) / union if union else float("nan")


def cut_map(scaled: NDArray[np.float32], threshold: float | None, fill_holes: bool = False) -> NDArray[np.bool_]:
    """Return the region of a map in [0, 1] above a threshold.

    Args:
        scaled: [H, W], see `stretched`.
        threshold: in [0, 1); None takes Otsu's.
        fill_holes: fill the holes of the region.
    """
    region: NDArray[np.bool_] = scaled > np.float32(otsu_threshold(scaled) if threshold is None else threshold)
    return without_holes(region) if fill_holes else region


def overlaps(
    heatmap: NDArray[np.float32], truth: NDArray[np.bool_], fill_holes: bool = False, positives_only: bool = False
) -> NDArray[np.float64]:
    """Return the overlap at each of `MAP_THRESHOLDS` and, last, at Otsu's threshold, [T + 1].

    Args:
        heatmap: [H, W], values of at least 0.
        truth: [H, W], not empty.
        fill_holes: fill the holes of each region.
        positives_only: give a map of zeros no overlap (NaN) instead of 0.
    """
    scaled = stretched(heatmap)
    if not scaled.any():
        return np.full(len(MAP_THRESHOLDS) + 1, np.nan if positives_only else 0.0)
    cuts = [*MAP_THRESHOLDS.tolist(), None]
    return np.array([intersection_over_union(cut_map(scaled, cut, fill_holes), truth) for cut in cuts])


def border_share(heatmap: NDArray[np.float32], margin: float = 0.05) -> float:
    """Return the share of the map's sum in a border of width `margin` times the side; NaN for a map of zeros.

    A large share suggests that the model reads side markers or collimation (CheXNet-Keras, issue 48).
    """
    total = float(heatmap.sum())
    if total <= 0:
        return float("nan")
    rows, columns = (max(1, round(margin * side)) for side in heatmap.shape)
    return 1 - float(heatmap[rows:-rows, columns:-columns].sum()) / total


@dataclass(frozen=True, eq=False)
class LocalizedImages:
    """Measurements on the images that have a true region of one finding.

    Attributes:
        patients: patient of each image.
        hits: [N] bool, see `is_hit`.
        overlaps: [N, T + 1], see `overlaps`.
        border: [N], see `border_share`.
    """

    patients: tuple[str, ...]
    hits: NDArray[np.bool_]
    overlaps: NDArray[np.float64]
    border: NDArray[np.float64]


@dataclass(frozen=True)
class LocalizationFigures:
    """Localization figures of one method and finding; None without images.

    Attributes:
        images: number of images with a true region.
        hit_rate: share of maps whose highest pixel lies in the region.
        hit_interval: Wilson's interval of `hit_rate`, see `rate_interval`.
        iou: mean overlap (intersection over union).
        iou_interval: percentile interval of `iou` over draws of patients.
        map_threshold: share of their range at which maps were cut; None for Otsu's, which differs by map.
        border: mean share of a map's sum at the border.
    """

    images: int
    hit_rate: float | None
    hit_interval: Interval
    iou: float | None
    iou_interval: Interval
    map_threshold: float | None
    border: float | None

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        return {
            "images": self.images,
            "hit_rate": self.hit_rate,
            "hit_rate_interval": self.hit_interval.to_dict(),
            "iou": self.iou,
            "iou_interval": self.iou_interval.to_dict(),
            "map_threshold": self.map_threshold,
            "border": self.border,
        }


def choose_map_threshold(measured: LocalizedImages) -> float | None:
    """Return the threshold with the largest mean overlap, the lowest of equal ones; None without images."""
    if not len(measured.hits):
        return None
    kept = measured.overlaps[~np.isnan(measured.overlaps[:, 0]), : len(MAP_THRESHOLDS)]
    if not len(kept):
        return None
    means = kept.mean(axis=0)
    return float(MAP_THRESHOLDS[int(means.argmax())])


def localization_figures(
    measured: LocalizedImages, map_threshold: float | None, settings: BootstrapSettings
) -> LocalizationFigures:
    """Average over images, with intervals over patients; maps are cut at `map_threshold`, or by Otsu if it is None."""
    if not len(measured.hits):
        nothing = Interval(None, None)
        return LocalizationFigures(0, None, nothing, None, nothing, map_threshold, None)
    column = len(MAP_THRESHOLDS) if map_threshold is None else int(np.flatnonzero(map_threshold == MAP_THRESHOLDS)[0])
    ious = measured.overlaps[:, column]
    hits = measured.hits.astype(np.float64)
    _, patients = number_patients(measured.patients)
    counts = ~np.isnan(ious)
    return LocalizationFigures(
        images=len(hits),
        hit_rate=float(hits.mean()),
        hit_interval=rate_interval(measured.hits, patients, settings.confidence),
        iou=float(ious[counts].mean()) if counts.any() else None,
        iou_interval=_mean_interval(ious, counts, PatientDraws(measured.patients, settings)),
        map_threshold=map_threshold,
        border=None if np.isnan(measured.border).all() else float(np.nanmean(measured.border)),
    )


def _mean_interval(values: NDArray[np.float64], counts: NDArray[np.bool_], draws: PatientDraws) -> Interval:
    kept = np.where(counts, values, 0.0)
    sums = [(weights @ kept, weights @ counts) for weights in draws.chunks()]
    with np.errstate(invalid="ignore"):  # a single patient has weights of 0
        means = np.concatenate([total / count for total, count in sums])
    return percentile_interval(means, draws.settings.confidence)


def mean_of(figures: Mapping[str, LocalizationFigures], name: str) -> float | None:
    """Average ``hit_rate`` or ``iou`` over the findings that have images; None if none has."""
    values: Sequence[float] = [value for one in figures.values() if (value := getattr(one, name)) is not None]
    return float(np.mean(values)) if values else None
