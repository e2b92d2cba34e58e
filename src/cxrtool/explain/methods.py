"""Methods that compute coarse heatmaps: which places of a radiograph a finding's logit depends on.

Each method of the CAM family is one function from activations and their gradients to a map; each other method is one
function from pixels to a map. There are no hooks: the network is run in two parts (`ChestNet.activations`,
`logits_after`), so an error leaves nothing behind, and threads may share the network.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from cxrtool.choices import Layer, Method
from cxrtool.errors import RequestError
from cxrtool.model.densenet import ChestNet
from cxrtool.settings import ExplainSettings

Map = NDArray[np.float32]
Wanted = Callable[[NDArray[np.float32]], NDArray[np.bool_]]
"""Function from logits [B, 5] to a mask [B, 5] of the image and finding pairs to explain."""


@dataclass(frozen=True)
class MapSettings:
    """How maps are computed.

    Attributes:
        method: see `Method`.
        layer: dense block that the CAM family reads.
        flip: average with the map of the mirrored image.
        scales: average over images resized by these factors.
        smooth: standard deviation of the Gaussian that smooths the map, as a share of its side; 0 does not smooth.
        channels: number of strongest channels that Score-CAM uses; 0 uses all.
        steps: steps of integrated gradients.
        samples: noisy copies in SmoothGrad; 1 adds no noise.
        patch: side of the occluding patch, as a share of the image's side.
    """

    # The defaults had the best hit rate, sanity, insertion and deletion together (docs/measurements/heatmaps.md).
    method: Method = Method.GRAD_CAM
    layer: Layer = Layer.DENSEBLOCK4
    flip: bool = True
    scales: tuple[float, ...] = (1.0,)
    smooth: float = 0.08
    channels: int = 32
    steps: int = 16
    samples: int = 2
    patch: float = 1 / 6

    @classmethod
    def of(cls, settings: ExplainSettings, image_size: int) -> Self:
        """Build from the user's settings; a layer that they do not name is chosen by `fitting_layer`."""
        scales = tuple(float(part) for part in settings.scales.split(","))
        layer = settings.layer or fitting_layer(image_size)
        return cls(settings.method, layer, settings.flip, scales, settings.smooth)

    @property
    def title(self) -> str:
        """Name of the method with its settings, for pictures and tables."""
        name = TITLES[self.method]
        at = f" ({self.layer})" if self.method in _COMBINE or self.method is Method.SCORE_CAM else ""
        more = [f"smoothed {self.smooth:g}"] if self.smooth else []
        more += ["with its mirror image"] if self.flip else []
        more += [f"scales {self.scales}"] if self.scales != (1.0,) else []
        return name + at + (f", {', '.join(more)}" if more else "")


def fitting_layer(image_size: int) -> Layer:
    """Return the deepest block whose maps have at least 6 x 6 cells: the fourth from 192 px on, the third from 96.

    Fewer cells miss most findings: at 96 px the fourth block has 3 x 3 (docs/measurements/heatmaps.md).
    """
    if image_size // 32 >= _FEWEST_CELLS:
        return Layer.DENSEBLOCK4
    return Layer.DENSEBLOCK3 if image_size // 16 >= _FEWEST_CELLS else Layer.DENSEBLOCK2


_FEWEST_CELLS = 6
TITLES = {
    Method.GRAD_CAM: "Grad-CAM",
    Method.GRAD_CAM_PLUS_PLUS: "Grad-CAM++",
    Method.LAYER_CAM: "LayerCAM",
    Method.SCORE_CAM: "Score-CAM",
    Method.INTEGRATED_GRADIENTS: "Integrated gradients",
    Method.OCCLUSION: "Occlusion",
}
_TINY = np.float32(1e-12)
_NOISE = 10.0  # standard deviation of SmoothGrad's noise, in grey levels
_UNCHANGED = (1.0, False)
"""The variant of an image at its own scale and not mirrored."""


def explain_batch(
    network: ChestNet, pixels: Tensor, wanted: Wanted, settings: MapSettings, fast: ChestNet | None = None
) -> tuple[NDArray[np.float32], list[dict[int, Map]]]:
    """Compute maps of several findings of several radiographs; the CAM family shares one forward pass.

    Args:
        network: network in eval mode; its parameters receive no gradient.
        pixels: [B, 1, S, S] in [0, 255], on the network's device.
        wanted: chooses the findings of each image.
        settings: method, layer and averaging.
        fast: the network's `inference_copy`, which runs what needs no gradient; `network` itself if None.

    Returns:
        logits: [B, 5] float32, of the unchanged images.
        maps: for each image a dict from position of the finding to a map [h, w] float32 of values of at least 0. A map
            averaged over variants is the mean of maps scaled to a peak of 1. Maps are coarse for the CAM family, [S, S]
            for other methods and if averaged, and [S / 4, S / 4] if smoothed.

    Raises:
        RequestError: the network is in train mode, in which BatchNorm would change and mix the images of a batch.
    """
    if network.training:
        raise RequestError("the network is in train mode", "Call network.eval() first.")
    fast = fast or network
    logits, own = _maps_of(network, fast, pixels, wanted, settings)
    size = pixels.shape[-1]
    # A smoothed map needs no higher resolution: this is finer than any CAM's cells, at a sixteenth of the cost.
    side = max(size // 4, 1) if settings.smooth else size
    sides = (False, True) if settings.flip else (False,)
    variants = [(scale, mirrored) for scale in settings.scales for mirrored in sides]
    if variants == [_UNCHANGED]:
        return logits, [_smoothed(one, side, settings) for one in own]
    chosen = wanted(logits)
    sums: list[dict[int, Map]] = [{} for _ in range(len(pixels))]
    for scale, mirrored in variants:
        maps = own
        if (scale, mirrored) != _UNCHANGED:
            changed = _resize(pixels.float(), round(size * scale / 32) * 32)
            changed = changed.flip(-1) if mirrored else changed
            _, maps = _maps_of(network, fast, changed, lambda _: chosen, settings)
        for total, found in zip(sums, maps, strict=True):
            for column, coarse in found.items():
                full = _to_size(np.ascontiguousarray(coarse[:, ::-1]) if mirrored else coarse, side)
                # Scaled to count equally: the height of a map differs between variants and marks no place.
                total[column] = total.get(column, np.float32(0)) + full / max(full.max(), _TINY) / len(variants)
    return logits, [_smoothed(one, side, settings) for one in sums]


def _smoothed(maps: dict[int, Map], side: int, settings: MapSettings) -> dict[int, Map]:
    if not settings.smooth:
        return maps
    return {column: _blur(_to_size(one, side), settings.smooth * side) for column, one in maps.items()}


def _blur(one: Map, deviation: float) -> Map:
    return cv2.GaussianBlur(one, (0, 0), deviation).astype(np.float32, copy=False)


def _maps_of(
    network: ChestNet, fast: ChestNet, pixels: Tensor, wanted: Wanted, settings: MapSettings
) -> tuple[NDArray[np.float32], list[dict[int, Map]]]:
    layer = settings.layer
    with torch.no_grad():
        activations = fast.activations(pixels, layer).float()
        logits = network.logits_after(activations, layer).cpu().numpy()
    chosen = wanted(logits)
    maps: list[dict[int, Map]] = [{} for _ in range(len(logits))]
    for column in range(chosen.shape[1]):
        rows = np.flatnonzero(chosen[:, column])
        if not len(rows):
            continue
        index = torch.from_numpy(rows).to(pixels.device)
        if settings.method in _COMBINE:
            found = _cam(network, activations[index], layer, column, _COMBINE[settings.method])
        else:
            found = _FROM_PIXELS[settings.method](network, fast, pixels[index].float(), column, settings)
        for row, one in zip(rows, found.cpu().numpy().astype(np.float32), strict=True):
            maps[row][column] = np.nan_to_num(one, nan=0.0, posinf=0.0)
    return logits, maps


def _cam(
    network: ChestNet, activations: Tensor, layer: Layer, column: int, combine: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    held = activations.detach().requires_grad_(True)
    with torch.enable_grad():
        logits = network.logits_after(held, layer)
        # In eval mode images are independent, so the gradient of the sum is the gradient of each.
        (gradients,) = torch.autograd.grad(logits[:, column].sum(), held)
    with torch.no_grad():
        return combine(held.detach(), gradients).relu()


def _grad_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Weight channels by their mean gradient: equations 1 and 2 of Selvaraju et al. 2017 (arXiv:1610.02391)."""
    return (gradients.mean(dim=(2, 3), keepdim=True) * activations).sum(dim=1)


def _grad_cam_plus_plus(activations: Tensor, gradients: Tensor) -> Tensor:
    """Use equations 10 and 19 of Chattopadhay et al. 2018 (arXiv:1710.11063), for an exponential of the logit."""
    squared = gradients**2
    below = 2 * squared + activations.sum(dim=(2, 3), keepdim=True) * gradients**3
    share = torch.where(gradients != 0, squared / (below + 1e-6), torch.zeros_like(gradients))
    weights = (gradients.relu() * share).sum(dim=(2, 3), keepdim=True)
    return (weights * activations).sum(dim=1)


def _layer_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Weight each cell by its own positive gradient: Jiang et al. 2021 (IEEE TIP 30:5875)."""
    return (gradients.relu() * activations).sum(dim=1)


_COMBINE: dict[Method, Callable[[Tensor, Tensor], Tensor]] = {
    Method.GRAD_CAM: _grad_cam,
    Method.GRAD_CAM_PLUS_PLUS: _grad_cam_plus_plus,
    Method.LAYER_CAM: _layer_cam,
}


@torch.no_grad()
def _score_cam(_: ChestNet, fast: ChestNet, pixels: Tensor, column: int, settings: MapSettings) -> Tensor:
    """Weight channels by the logit of the image masked by them: Wang et al. 2020 (arXiv:1910.01279).

    Each channel costs a forward pass, so only the `settings.channels` channels with the largest peak are used.
    """
    layer, size = settings.layer, pixels.shape[-1]
    maps = []
    for image in pixels:
        activations = fast.activations(image[None], layer)[0].float()
        count = settings.channels or len(activations)
        kept = activations[activations.amax(dim=(1, 2)).topk(min(count, len(activations))).indices]
        masks = functional.interpolate(kept[:, None], (size, size), mode="bilinear", align_corners=True)
        low, high = masks.amin(dim=(2, 3), keepdim=True), masks.amax(dim=(2, 3), keepdim=True)
        masks = (masks - low) / (high - low).clamp(min=1e-8)
        scores = _logits(fast, image[None] * masks)[:, column]
        maps.append((scores.softmax(dim=0)[:, None, None] * kept).sum(dim=0).relu())
    return torch.stack(maps)


def integrated_gradients(
    network: ChestNet, pixels: Tensor, column: int, steps: int, baseline: Tensor | None = None
) -> Tensor:
    """Integrate gradients from a baseline to the image (Sundararajan et al. 2017, arXiv:1703.01365), by midpoints.

    Args:
        network: network in eval mode.
        pixels: [B, 1, S, S] float.
        column: position of the finding.
        steps: number of midpoints.
        baseline: [B, 1, S, S]; black if None.

    Returns:
        Attributions [B, S, S]. Their sum approaches the logit's rise from the baseline as `steps` grow (completeness).
    """
    start = torch.zeros_like(pixels) if baseline is None else baseline
    total = torch.zeros_like(pixels)
    for step in range(steps):
        held = (start + (step + 0.5) / steps * (pixels - start)).detach().requires_grad_(True)
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(network(held)[:, column].sum(), held)
        total += gradient
    return ((pixels - start) * total / steps)[:, 0].detach()


def _smooth_integrated_gradients(
    network: ChestNet, _: ChestNet, pixels: Tensor, column: int, settings: MapSettings
) -> Tensor:
    """Average integrated gradients over noisy copies (SmoothGrad, Smilkov et al. 2017, arXiv:1706.03825).

    The positive part is blurred over 2 % of the side, because single pixels mark no region.
    """
    generator = torch.Generator().manual_seed(0)  # the same image gives the same map
    total = torch.zeros_like(pixels[:, 0])
    deviation = 0.0 if settings.samples == 1 else _NOISE
    for _sample in range(settings.samples):
        noise = deviation * torch.randn(pixels.shape, generator=generator).to(pixels.device)
        total += integrated_gradients(network, pixels + noise, column, settings.steps)
    positive = (total / settings.samples).relu().cpu().numpy()
    blurred = [_blur(one, 0.02 * one.shape[0]) for one in positive]
    return torch.from_numpy(np.stack(blurred).astype(np.float32))


@torch.no_grad()
def _occlusion(_: ChestNet, fast: ChestNet, pixels: Tensor, column: int, settings: MapSettings) -> Tensor:
    """Measure how far the logit falls when a patch turns mean grey: Zeiler & Fergus 2014 (arXiv:1311.2901)."""
    size = pixels.shape[-1]
    side = max(2, round(settings.patch * size))
    starts = list(range(0, size - side + 1, max(1, side // 2)))
    starts += [size - side] if starts[-1] != size - side else []
    maps = []
    for image in pixels:
        whole = _logits(fast, image[None])[0, column]
        places = [(top, left) for top in starts for left in starts]
        covered = image[None].repeat(len(places), 1, 1, 1)
        for one, (top, left) in zip(covered, places, strict=True):
            one[:, top : top + side, left : left + side] = image.mean()
        falls = whole - _logits(fast, covered)[:, column]
        total, times = torch.zeros(size, size), torch.zeros(size, size)
        for fall, (top, left) in zip(falls.cpu(), places, strict=True):
            total[top : top + side, left : left + side] += fall
            times[top : top + side, left : left + side] += 1
        maps.append((total / times).relu())
    return torch.stack(maps)


_FROM_PIXELS: dict[Method, Callable[[ChestNet, ChestNet, Tensor, int, MapSettings], Tensor]] = {
    Method.SCORE_CAM: _score_cam,
    Method.INTEGRATED_GRADIENTS: _smooth_integrated_gradients,
    Method.OCCLUSION: _occlusion,
}


def _logits(network: ChestNet, pixels: Tensor) -> Tensor:
    """Return logits [B, 5], computed for 16 images at a time to limit memory."""
    return torch.cat([network(part) for part in torch.split(pixels, 16)])


def _resize(pixels: Tensor, size: int) -> Tensor:
    if pixels.shape[-1] == size:
        return pixels
    return functional.interpolate(pixels, (size, size), mode="bilinear", antialias=True)


def _to_size(coarse: Map, size: int) -> Map:
    return cv2.resize(coarse, (size, size), interpolation=cv2.INTER_LINEAR).astype(np.float32, copy=False)


def all_columns(columns: Sequence[int]) -> Wanted:
    """Return a choice of these findings, by position, for every image."""

    def wanted(logits: NDArray[np.float32]) -> NDArray[np.bool_]:
        chosen = np.zeros(logits.shape, dtype=np.bool_)
        chosen[:, list(columns)] = True
        return chosen

    return wanted


def only(pairs: Sequence[tuple[int, int]]) -> Wanted:
    """Return a choice of these pairs of image and finding, by position."""

    def wanted(logits: NDArray[np.float32]) -> NDArray[np.bool_]:
        chosen = np.zeros(logits.shape, dtype=np.bool_)
        for row, column in pairs:
            chosen[row, column] = True
        return chosen

    return wanted
