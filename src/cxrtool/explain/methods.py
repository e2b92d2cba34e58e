"""From a network and radiographs to coarse maps: where a finding's logit comes from.

A method of the CAM family differs in one function, from activations and their gradients to a map; the others in one
function from pixels to a map. There are no hooks: the network is run in two parts (`ChestNet.activations`,
`logits_after`), so nothing is left behind after an error and threads may share it.
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
"""From logits [B, 5] to which findings of which image are to be explained, [B, 5]."""


@dataclass(frozen=True)
class MapSettings:
    """How maps are made.

    Attributes:
        method: see `Method`.
        layer: of the CAM family.
        flip: average with the map of the mirrored image.
        scales: average over images resized by these factors.
        smooth: width of a Gaussian over the map, a share of its side; 0 leaves the map as it is.
        channels: of Score-CAM, the strongest so many; 0 takes all.
        steps: of integrated gradients.
        samples: noisy copies in SmoothGrad; 1 adds no noise.
        patch: of occlusion, a share of the image's side.
    """

    # The defaults had the best figures together: hits, sanity, insertion and deletion (docs/explain.md).
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
    def of(cls, wished: ExplainSettings, image_size: int) -> Self:
        """As the settings say; the layer that fits the network's input where they name none."""
        scales = tuple(float(part) for part in wished.scales.split(","))
        return cls(wished.method, wished.layer or fitting_layer(image_size), wished.flip, scales, wished.smooth)

    @property
    def title(self) -> str:
        """As pictures and tables name it."""
        name = TITLES[self.method]
        at = f" ({self.layer})" if self.method in _COMBINE or self.method is Method.SCORE_CAM else ""
        more = [f"smoothed {self.smooth:g}"] if self.smooth else []
        more += ["with its mirror image"] if self.flip else []
        more += [f"scales {self.scales}"] if self.scales != (1.0,) else []
        return name + at + (f", {', '.join(more)}" if more else "")


def fitting_layer(image_size: int) -> Layer:
    """The deepest block whose maps have six cells a side or more: the fourth from 192 px on, the third from 96.

    At 96 px the fourth block's three cells hit 0.03 of the findings and the third's six 0.31 (docs/explain.md).
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
_NOISE = 10.0  # grey levels, SmoothGrad's
_AS_IT_IS = (1.0, False)
"""An image at its own scale, not mirrored."""


def explain_batch(
    network: ChestNet, pixels: Tensor, wanted: Wanted, settings: MapSettings, fast: ChestNet | None = None
) -> tuple[NDArray[np.float32], list[dict[int, Map]]]:
    """Maps of several findings of several radiographs; the CAM family shares one forward pass.

    Args:
        network: in eval mode; its parameters take no gradient from this.
        pixels: [B, 1, S, S] in [0, 255], on the network's device.
        wanted: which findings of which image.
        settings: method, layer and averaging.
        fast: the network's `inference_copy`, which runs what needs no gradient; the network itself unless given.

    Returns:
        logits: [B, 5] float32, of the images as they are.
        maps: per image, by position of the finding: [h, w] float32, at least 0, as the method gave them or, where maps
            are averaged, the mean of maps that each have the peak 1; coarse for the CAM family, [S, S] otherwise and
            where maps are averaged, a quarter of that where they are smoothed.

    Raises:
        RequestError: the network is in train mode, where its BatchNorm would move and images of a batch would mix.
    """
    if network.training:
        raise RequestError("the network is in train mode", "Call network.eval() first.")
    fast = fast or network
    logits, own = _maps_of(network, fast, pixels, wanted, settings)
    size = pixels.shape[-1]
    # A smooth map needs no more: finer than any CAM's cells, and a sixteenth of the image's cost.
    side = max(size // 4, 1) if settings.smooth else size
    sides = (False, True) if settings.flip else (False,)
    variants = [(scale, mirrored) for scale in settings.scales for mirrored in sides]
    if variants == [_AS_IT_IS]:
        return logits, [_smoothed(one, side, settings) for one in own]
    chosen = wanted(logits)
    sums: list[dict[int, Map]] = [{} for _ in range(len(pixels))]
    for scale, mirrored in variants:
        maps = own
        if (scale, mirrored) != _AS_IT_IS:
            changed = _resize(pixels.float(), round(size * scale / 32) * 32)
            changed = changed.flip(-1) if mirrored else changed
            _, maps = _maps_of(network, fast, changed, lambda _: chosen, settings)
        for total, found in zip(sums, maps, strict=True):
            for column, coarse in found.items():
                full = _to_size(np.ascontiguousarray(coarse[:, ::-1]) if mirrored else coarse, side)
                # Each has an equal say: how high a map is differs with the variant, and is not where to look.
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
        # Images do not mix in eval mode: the gradient of the sum holds each image's own.
        (gradients,) = torch.autograd.grad(logits[:, column].sum(), held)
    with torch.no_grad():
        return combine(held.detach(), gradients).relu()


def _grad_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Equations 1 and 2 of Selvaraju et al. 2017 (arXiv:1610.02391): channels weighed by their mean gradient."""
    return (gradients.mean(dim=(2, 3), keepdim=True) * activations).sum(dim=1)


def _grad_cam_plus_plus(activations: Tensor, gradients: Tensor) -> Tensor:
    """Equations 10 and 19 of Chattopadhay et al. 2018 (arXiv:1710.11063), for an exponential of the logit."""
    squared = gradients**2
    below = 2 * squared + activations.sum(dim=(2, 3), keepdim=True) * gradients**3
    share = torch.where(gradients != 0, squared / (below + 1e-6), torch.zeros_like(gradients))
    weights = (gradients.relu() * share).sum(dim=(2, 3), keepdim=True)
    return (weights * activations).sum(dim=1)


def _layer_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Jiang et al. 2021 (IEEE TIP 30:5875): each cell weighed by its own positive gradient."""
    return (gradients.relu() * activations).sum(dim=1)


_COMBINE: dict[Method, Callable[[Tensor, Tensor], Tensor]] = {
    Method.GRAD_CAM: _grad_cam,
    Method.GRAD_CAM_PLUS_PLUS: _grad_cam_plus_plus,
    Method.LAYER_CAM: _layer_cam,
}


@torch.no_grad()
def _score_cam(_: ChestNet, fast: ChestNet, pixels: Tensor, column: int, settings: MapSettings) -> Tensor:
    """Wang et al. 2020 (arXiv:1910.01279): channels weighed by the logit of the image seen through them.

    Of the `settings.channels` channels with the largest peak, since each costs a forward pass.
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
    """Sundararajan et al. 2017 (arXiv:1703.01365), midpoints of `steps` equal parts of the way from the baseline.

    Args:
        network: in eval mode.
        pixels: [B, 1, S, S] float.
        column: the finding.
        steps: of the sum.
        baseline: [B, 1, S, S]; black unless given.

    Returns:
        [B, S, S]; its sum nears the logit's rise from the baseline as `steps` grow (completeness).
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
    """Integrated gradients, averaged over noisy copies (SmoothGrad, Smilkov et al. 2017, arXiv:1706.03825).

    Its positive part, blurred over 2 % of the side: single pixels are no place.
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
    """Zeiler & Fergus 2014 (arXiv:1311.2901): how far the logit falls when a patch takes the image's mean grey."""
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
    """Logits [B, 5] of any number of images, 16 at a time, so that many masks of one image take little memory."""
    return torch.cat([network(part) for part in torch.split(pixels, 16)])


def _resize(pixels: Tensor, size: int) -> Tensor:
    if pixels.shape[-1] == size:
        return pixels
    return functional.interpolate(pixels, (size, size), mode="bilinear", antialias=True)


def _to_size(coarse: Map, size: int) -> Map:
    return cv2.resize(coarse, (size, size), interpolation=cv2.INTER_LINEAR).astype(np.float32, copy=False)


def all_columns(columns: Sequence[int]) -> Wanted:
    """Explain these findings of every image."""

    def wanted(logits: NDArray[np.float32]) -> NDArray[np.bool_]:
        chosen = np.zeros(logits.shape, dtype=np.bool_)
        chosen[:, list(columns)] = True
        return chosen

    return wanted


def only(pairs: Sequence[tuple[int, int]]) -> Wanted:
    """Explain these pairs of an image and a finding, by position."""

    def wanted(logits: NDArray[np.float32]) -> NDArray[np.bool_]:
        chosen = np.zeros(logits.shape, dtype=np.bool_)
        for row, column in pairs:
            chosen[row, column] = True
        return chosen

    return wanted
