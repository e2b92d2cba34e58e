"""Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391) on the last dense block.

Without hooks: the network is run in two halves, so that nothing is left behind after an error and threads may share it.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from cxrtool.explain.overlay import draw_figure, draw_heatmap, draw_overlay
from cxrtool.files import write_png
from cxrtool.model.densenet import ChestNet

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Explanation:
    """Where the network looked for one finding in one radiograph.

    Attributes:
        path: the radiograph's file.
        label: the finding.
        probability: in [0, 1].
        threshold: positive at or above it.
        image: [H, W] uint8, the radiograph as read.
        heatmap: [H, W] float32 in [0, 1], its largest value 1 unless the map is zero everywhere.
    """

    path: Path
    label: str
    probability: float
    threshold: float
    image: NDArray[np.uint8]
    heatmap: NDArray[np.float32]

    @property
    def positive(self) -> bool:
        """Whether the probability reaches the threshold."""
        return self.probability >= self.threshold

    def overlay(self, alpha: float = 0.45) -> NDArray[np.uint8]:
        """The heatmap over the radiograph, [H, W, 3] uint8 RGB; `alpha` in [0, 1] is its strength."""
        return draw_overlay(self.image, self.heatmap, alpha)

    def figure(self, alpha: float = 0.45) -> NDArray[np.uint8]:
        """Radiograph, heatmap and overlay side by side with finding, probability and threshold; RGB uint8."""
        caption = (
            f"{self.label}: probability {self.probability:.3f}, threshold {self.threshold:.2f}, "
            f"{'positive' if self.positive else 'negative'}"
        )
        return draw_figure(self.image, self.heatmap, alpha, caption)

    def save(self, folder: Path, name: str | None = None, alpha: float = 0.45) -> dict[str, Path]:
        """Write heatmap, overlay and figure as PNG into `folder`; give back their paths by kind.

        Raises:
            CxrError: the folder cannot be written.
        """
        stem = f"{name or self.path.stem}_{self.label.replace(' ', '_')}"
        pictures = {
            "heatmap": draw_heatmap(self.heatmap),
            "overlay": self.overlay(alpha),
            "figure": self.figure(alpha),
        }
        paths = {kind: folder / f"{stem}_{kind}.png" for kind in pictures}
        for kind, picture in pictures.items():
            write_png(paths[kind], picture)
        return paths


def grad_cam(
    network: ChestNet, pixels: torch.Tensor, columns: Sequence[int]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Grad-CAM of several findings from one pass through the network.

    Activation and gradient are both taken after the last ReLU, the map is the ReLU of the activations weighed by
    their mean gradient (equations 1 and 2 of the paper).

    Args:
        network: in eval mode.
        pixels: [B, 1, S, S] in [0, 255], on the network's device.
        columns: positions of the findings wanted.

    Returns:
        logits: [B, 5] float32.
        maps: [B, len(columns), S / 32, S / 32] float32, at least 0, not scaled.
    """
    with torch.no_grad():
        features = network.activations(pixels).float()
    activations = features.detach().requires_grad_(True)
    with torch.enable_grad():
        logits = network.head(activations)
        maps = []
        for column in columns:
            # Images do not mix in eval mode: the gradient of the sum holds each image's own.
            (gradient,) = torch.autograd.grad(logits[:, column].sum(), activations, retain_graph=True)
            weights = gradient.mean(dim=(2, 3), keepdim=True)
            maps.append((weights * activations.detach()).sum(dim=1).relu())
    return logits.detach().cpu().numpy(), torch.stack(maps, dim=1).cpu().numpy()


def scale_map(coarse: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """A coarse map at the radiograph's size, in [0, 1].

    Args:
        coarse: [h, w], at least 0.
        height: of the radiograph, pixels.
        width: likewise.

    Returns:
        [height, width] float32, bilinear, divided by its largest value; zero where the map is zero everywhere.
    """
    full = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    peak = float(full.max())
    if peak <= 0:
        return np.zeros((height, width), dtype=np.float32)
    scaled: NDArray[np.float32] = np.clip(full / peak, 0, 1).astype(np.float32)
    return scaled
