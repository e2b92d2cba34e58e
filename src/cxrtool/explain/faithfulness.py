"""Tests of whether a map depends on the model, and the model on what the map shows."""

import copy
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from cxrtool.evaluation.ranking import midranks
from cxrtool.explain.methods import Map, MapSettings, explain_batch, only
from cxrtool.model.densenet import ChestNet
from cxrtool.model.folding import inference_copy

RANDOMISED = ("classifier", "denseblock4", "denseblock3", "denseblock2", "denseblock1", "all")
"""Steps from the top of the network: each randomises the named part and everything before it in this list."""
_STEPS = 20


def randomised(network: ChestNet, upto: str, seed: int = 0) -> ChestNet:
    """Return a copy with random layers from the top down to `upto` (cascading randomisation, Adebayo et al. 2018).

    Convolutions and the classifier get new initial weights. BatchNorms lose their learnt scale and shift but keep their
    statistics, without which activations would leave their range.

    Args:
        network: trained network, which is not changed.
        upto: last step to randomise, one of `RANDOMISED`.
        seed: random seed.
    """
    changed: ChestNet = copy.deepcopy(network)
    parts: list[list[Any]] = [
        [changed.classifier],
        [changed.features.denseblock4, changed.features.norm5],
        [changed.features.transition3, changed.features.denseblock3],
        [changed.features.transition2, changed.features.denseblock2],
        [changed.features.transition1, changed.features.denseblock1],
        [changed.features.conv0, changed.features.norm0],
    ]
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        for group in parts[: RANDOMISED.index(upto) + 1]:
            for module in (child for part in group for child in part.modules()):
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight)
                elif isinstance(module, nn.BatchNorm2d):
                    module.weight.fill_(1)
                    module.bias.zero_()
                elif isinstance(module, nn.Linear):
                    module.reset_parameters()
    changed.eval().requires_grad_(False)
    return changed


def rank_correlation(first: Map, second: Map) -> float:
    """Return Spearman's correlation of two maps' pixels, or 0 if one of the maps is constant."""
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    one, other = (midranks(values.astype(np.float64).ravel()) for values in (first, second))
    return float(np.corrcoef(one, other)[0, 1])


def sanity_curve(
    network: ChestNet, pixels: Tensor, pairs: Sequence[tuple[int, int]], settings: MapSettings, seed: int = 0
) -> dict[str, float]:
    """Compare maps with those of increasingly randomised networks; maps that stay similar do not depend on the model.

    Args:
        network: trained network in eval mode.
        pixels: [B, 1, S, S] in [0, 255].
        pairs: pairs of image and finding, by position.
        settings: how maps are computed.
        seed: random seed of the layers.

    Returns:
        Mean rank correlation with the trained network's maps, by step of `RANDOMISED`.
    """
    wanted = only(pairs)
    own = explain_batch(network, pixels, wanted, settings, inference_copy(network))[1]
    found = {}
    for upto in RANDOMISED:
        changed = randomised(network, upto, seed)
        other = explain_batch(changed, pixels, wanted, settings, inference_copy(changed))[1]
        found[upto] = float(np.mean([rank_correlation(own[row][column], other[row][column]) for row, column in pairs]))
    return found


@torch.no_grad()
def deletion_and_insertion(network: ChestNet, pixels: Tensor, column: int, heatmap: Map) -> tuple[float, float]:
    """Return the areas under the deletion and insertion curves (Petsiuk et al. 2018, arXiv:1806.07421).

    Each curve is the finding's probability while pixels are deleted or inserted, the hottest first.

    Args:
        network: network in eval mode.
        pixels: [1, 1, S, S] float in [0, 255].
        column: position of the finding.
        heatmap: [h, w], on any scale.

    Returns:
        deletion: area in [0, 1], lower is better; deleted pixels take the image's mean grey.
        insertion: area in [0, 1], higher is better; it starts from a blurred image, in which no finding can be seen.
    """
    size = pixels.shape[-1]
    full = cv2.resize(heatmap, (size, size), interpolation=cv2.INTER_LINEAR)
    order = torch.from_numpy(np.argsort(-full.ravel(), kind="stable").copy()).to(pixels.device)
    blurred = cv2.GaussianBlur(pixels[0, 0].cpu().numpy(), (0, 0), size / 16)
    empty = torch.full_like(pixels, float(pixels.mean()))
    soft = torch.from_numpy(blurred).to(pixels.device)[None, None]
    return (
        _area(network, pixels, empty, order, column),
        _area(network, soft, pixels, order, column),
    )


def _area(network: ChestNet, start: Tensor, end: Tensor, order: Tensor, column: int) -> float:
    frames = []
    for step in range(_STEPS + 1):
        frame = start.clone().reshape(-1)
        places = order[: round(len(order) * step / _STEPS)]
        frame[places] = end.reshape(-1)[places]
        frames.append(frame.reshape(start.shape))
    probabilities = torch.sigmoid(network(torch.cat(frames))[:, column].float())
    return float(torch.trapezoid(probabilities, dx=1 / _STEPS))
