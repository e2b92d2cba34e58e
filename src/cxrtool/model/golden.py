"""Golden images: what a network gives for fixed synthetic radiographs, kept in its bundle's header.

The images are not stored. They are drawn again by `check_images`, and their digest is.
"""

import hashlib
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cxrtool.data.preprocessing import Preprocessing
from cxrtool.model.densenet import ChestNet
from cxrtool.model.header import StoredGolden
from cxrtool.phantoms.check_images import check_images


def golden_of(weights: Mapping[str, Tensor], preprocessing: Preprocessing) -> StoredGolden:
    """Return what a network with these weights gives for the golden images, by torch in float32 on the CPU.

    It runs the network as it was trained, not its folded copy, so that an error of folding shows as a difference.

    Args:
        weights: state dict of a `ChestNet`, on any device; they are not changed.
        preprocessing: how the network's images are made.
    """
    with torch.device("meta"):
        network = ChestNet(preprocessing, len(weights["classifier.bias"]))
    network.load_state_dict({name: tensor.detach().cpu() for name, tensor in weights.items()}, assign=True)
    network.eval()
    pixels = check_images(preprocessing)
    with torch.inference_mode():
        # One by one: eight images of 1024 pixels at once would take gigabytes.
        logits = torch.cat([network(torch.from_numpy(image[None])) for image in pixels])
    rows = tuple(tuple(float(f"{value:.9g}") for value in row) for row in logits.tolist())
    return StoredGolden(pixels_sha256=digest_of_pixels(pixels), logits=rows)


def digest_of_pixels(pixels: NDArray[np.uint8]) -> str:
    """Return the SHA-256 of images [N, 1, S, S] uint8 and their shape, in hex."""
    digest = hashlib.sha256(str(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()
