"""Does a map depend on the model, and does the model depend on what the map shows?"""

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
"""From the top: each step randomises what the one before did, and the named part too."""
_STEPS = 20


def randomised(network: ChestNet, upto: str, seed: int = 0) -> ChestNet:
    """A copy whose layers are drawn anew from the top down to `upto` (cascading randomisation, Adebayo et al. 2018).

    Convolutions and the classifier take their random start; BatchNorms keep their statistics, without which activations
    would leave their range, but lose their learnt scale and shift.

    Args:
        network: stays as it is.
        upto: one of `RANDOMISED`.
        seed: of the draws.
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
    """Spearman's correlation of two maps' pixels; 0 where one of them is constant, as it then tells nothing."""
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    one, other = (midranks(values.astype(np.float64).ravel()) for values in (first, second))
    return float(np.corrcoef(one, other)[0, 1])


def sanity_curve(
    network: ChestNet, pixels: Tensor, pairs: Sequence[tuple[int, int]], settings: MapSettings, seed: int = 0
) -> dict[str, float]:
    """How alike maps stay when the network loses what it has learnt: they must not.

    Args:
        network: in eval mode.
        pixels: [B, 1, S, S] in [0, 255].
        pairs: image and finding, by position.
        settings: of the maps.
        seed: of the random layers.

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
    """Areas under the probability as the hottest pixels go first, and as they come first (Petsiuk et al. 2018,
    arXiv:1806.07421).

    Args:
        network: in eval mode.
        pixels: [1, 1, S, S] float in [0, 255].
        column: the finding.
        heatmap: [h, w], any scale.

    Returns:
        deletion: in [0, 1], lower is better; deleted pixels take the image's mean grey.
        insertion: in [0, 1], higher is better; from a blurred image, in which no finding can be seen.
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
