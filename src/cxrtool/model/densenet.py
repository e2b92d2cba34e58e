"""DenseNet121 (Huang et al. 2017, arXiv:1608.06993) for five findings; it returns logits, always."""

import re
from pathlib import Path
from urllib.error import URLError

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.models import DenseNet, DenseNet121_Weights

from cxrtool.data.images import Preprocessing
from cxrtool.errors import ModelError, RequestError
from cxrtool.findings import FINDINGS

# torchvision's published file names its layers norm.1, conv.2; its modules are called norm1, conv2.
_OLD_NAME = re.compile(r"^(.*denselayer\d+\.(?:norm|conv))\.([12]\..*)$")


class ChestNet(DenseNet):  # type: ignore[misc]  # torchvision ships no types
    """torchvision's DenseNet121 with one logit per finding, taking grey pixels as they are read.

    Its parameters have torchvision's names. Normalisation is part of the network, so a batch travels to the device
    as uint8, a twelfth of the bytes of a normalised float RGB batch, and no caller can forget it.

    Args:
        preprocessing: gives mean and standard deviation per channel, of pixels scaled to [0, 1].
    """

    mean: Tensor
    std: Tensor

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__(32, (6, 12, 24, 16), 64, num_classes=len(FINDINGS))
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(preprocessing.std).view(1, 3, 1, 1), persistent=False)

    def activations(self, pixels: Tensor) -> Tensor:
        """The last dense block's output, after its normalisation and ReLU.

        Args:
            pixels: [B, 1, S, S], uint8 or float, in [0, 255].

        Returns:
            [B, 1024, S / 32, S / 32], at least 0: what the classifier averages, and what Grad-CAM weighs. The
            ReLU is not in place: torchvision's overwrites what a hook on `features` has seen.
        """
        scaled = pixels.to(self.mean.dtype) / 255.0
        normalised = (scaled - self.mean) / self.std
        if self.features.conv0.weight.is_contiguous(memory_format=torch.channels_last):
            normalised = normalised.contiguous(memory_format=torch.channels_last)
        return functional.relu(self.features(normalised))

    def head(self, activations: Tensor) -> Tensor:
        """Logits [B, 5] float32 of `activations`; averaged and classified in float32 whatever they came in."""
        with torch.autocast(activations.device.type, enabled=False):
            pooled = activations.float().mean(dim=(2, 3))
            logits: Tensor = self.classifier(pooled)
        return logits

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits [B, 5] float32 of pixels [B, 1, S, S] in [0, 255]."""
        return self.head(self.activations(pixels))


def build_network(preprocessing: Preprocessing, init: str, seed: int) -> ChestNet:
    """A network to train.

    Args:
        preprocessing: what its images go through.
        init: ``imagenet`` (torchvision's weights, fetched once and kept in TORCH_HOME), ``none`` (random, from
            `seed`), or a ``.safetensors`` file: a bundle of ours, or a DenseNet121's weights in torchvision's names.
            A classifier of another size than five findings is left at its random start.
        seed: draws every random start, the classifier's too.

    Raises:
        RequestError: the weights cannot be had.
        ModelError: the file's weights do not fit DenseNet121.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = ChestNet(preprocessing)
    if init != "none":
        weights = _imagenet_weights() if init == "imagenet" else _weights_in(Path(init))
        _load_backbone(network, weights, init)
    return network


def _imagenet_weights() -> dict[str, Tensor]:
    weights = DenseNet121_Weights.IMAGENET1K_V1
    try:
        # weights_only is said aloud: torchvision's own default would run a pickle put in the file's place.
        return dict(weights.get_state_dict(progress=False, check_hash=True, weights_only=True))
    except (URLError, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", error)
        raise RequestError(
            f"the ImageNet weights could not be fetched from {weights.url} ({reason})",
            f"Start from random weights with --init none, from a file with --init FILE.safetensors, or put "
            f"{Path(weights.url).name} in {Path(torch.hub.get_dir()) / 'checkpoints'}.",
        ) from None
    except Exception as error:  # noqa: BLE001 - torch.load has no common base for a file that is no weights
        kept = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
        raise RequestError(
            f"the ImageNet weights in {kept} cannot be read ({type(error).__name__})",
            "Remove that file, so that it is fetched anew.",
        ) from None


def _weights_in(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise RequestError(f"--init {path}: no such file", "Use imagenet, none, or a .safetensors file.")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise RequestError(
            f"--init {path} is not a safetensors file ({error})",
            "Pickles (.pt, .pth) are not read: save the weights with safetensors.torch.save_file.",
        ) from None


def _load_backbone(network: ChestNet, weights: dict[str, Tensor], origin: str) -> None:
    renamed = {_OLD_NAME.sub(r"\1\2", name): tensor for name, tensor in weights.items()}
    own = network.state_dict()
    for name in ("classifier.weight", "classifier.bias"):
        if name in renamed and renamed[name].shape != own[name].shape:
            del renamed[name]
    wrong = [n for n, t in renamed.items() if n not in own or t.shape != own[n].shape]
    missing = [n for n in own if n not in renamed and not n.startswith("classifier.") and "num_batches" not in n]
    if wrong or missing:
        raise ModelError(
            f"--init {origin} is no DenseNet121: {(wrong + missing)[0]!r} is "
            f"{'not its own or of another shape' if wrong else 'missing'}",
            "Give weights in torchvision's names (features.*, classifier.*), without a prefix.",
        )
    network.load_state_dict(renamed, strict=False)
