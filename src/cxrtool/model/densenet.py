"""DenseNet121 (Huang et al. 2017, arXiv:1608.06993) for five findings; it returns logits, always."""

import re
from collections import OrderedDict
from pathlib import Path
from urllib.error import URLError

import torch
from torch import Tensor, nn
from torch.nn import functional

from cxrtool.choices import Layer
from cxrtool.data.preprocessing import Preprocessing
from cxrtool.errors import ModelError, RequestError
from cxrtool.findings import FINDINGS

GROWTH = 32
"""Channels that each layer of a block adds."""
LAYERS = (6, 12, 24, 16)
"""Layers of the four dense blocks; 121 counts their convolutions, the first, the transitions' and the classifier."""

# torchvision's published file names its layers norm.1, conv.2; its modules are called norm1, conv2.
OLD_NAME = re.compile(r"^(.*denselayer\d+\.(?:norm|conv))\.([12]\..*)$")

_FOLLOWING = {
    Layer.DENSEBLOCK2: "transition2",
    Layer.DENSEBLOCK3: "transition3",
    Layer.DENSEBLOCK4: "norm5",
}
"""The module whose normalisation and ReLU follow a dense block."""


class DenseLayer(nn.Module):
    """Normalise, narrow to 4 x growth channels, normalise, and add `GROWTH` new ones."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, 4 * GROWTH, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(4 * GROWTH)
        self.conv2 = nn.Conv2d(4 * GROWTH, GROWTH, 3, padding=1, bias=False)

    def forward(self, values: Tensor) -> Tensor:
        """[B, C, H, W] to the new channels, [B, GROWTH, H, W]."""
        narrow = self.conv1(functional.relu(self.norm1(values), inplace=True))
        new: Tensor = self.conv2(functional.relu(self.norm2(narrow), inplace=True))
        return new


class DenseBlock(nn.Module):
    """Layers that each see the block's input and all channels added before them."""

    def __init__(self, channels: int, layers: int) -> None:
        super().__init__()
        for number in range(layers):
            self.add_module(f"denselayer{number + 1}", DenseLayer(channels + number * GROWTH))

    def forward(self, values: Tensor) -> Tensor:
        """[B, C, H, W] to [B, C + layers x GROWTH, H, W]."""
        for layer in self.children():
            values = torch.cat((values, layer(values)), 1)
        return values


class Transition(nn.Module):
    """Between two blocks: half the channels, half the height and width."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.conv = nn.Conv2d(channels, channels // 2, 1, bias=False)
        self.pool = nn.AvgPool2d(2, stride=2)

    def forward(self, values: Tensor) -> Tensor:
        """[B, C, H, W] to [B, C / 2, H / 2, W / 2]."""
        return self.after_norm(functional.relu(self.norm(values), inplace=True))

    def after_norm(self, activations: Tensor) -> Tensor:
        """The rest of `forward`, from what was normalised and rectified."""
        halved: Tensor = self.pool(self.conv(activations))
        return halved


class ChestNet(nn.Module):
    """DenseNet121 with one logit per finding, taking grey pixels as they are read.

    Its parameters have torchvision's names and, for one seed, torchvision's random start; it is written out here
    because importing torchvision takes as long as importing torch, and because maps need the network in two parts.
    Normalisation is part of it, so a batch travels to the device as uint8, a twelfth of the bytes of a normalised float
    RGB batch, and no caller can forget it.

    Args:
        preprocessing: gives mean and standard deviation per channel, of pixels scaled to [0, 1].
    """

    mean: Tensor
    std: Tensor

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.features = nn.Sequential(
            OrderedDict(
                conv0=nn.Conv2d(3, 2 * GROWTH, 7, stride=2, padding=3, bias=False),
                norm0=nn.BatchNorm2d(2 * GROWTH),
                relu0=nn.ReLU(inplace=True),
                pool0=nn.MaxPool2d(3, stride=2, padding=1),
            )
        )
        channels = 2 * GROWTH
        for number, layers in enumerate(LAYERS, start=1):
            self.features.add_module(f"denseblock{number}", DenseBlock(channels, layers))
            channels += GROWTH * layers
            if number < len(LAYERS):
                self.features.add_module(f"transition{number}", Transition(channels))
                channels //= 2
        self.features.add_module("norm5", nn.BatchNorm2d(channels))
        self.classifier = nn.Linear(channels, len(FINDINGS))
        # On the CPU even where the parameters are only shapes (`load_bundle`): these two are in no file.
        for name, values in (("mean", preprocessing.mean), ("std", preprocessing.std)):
            self.register_buffer(name, torch.tensor(values, device="cpu").view(1, 3, 1, 1), persistent=False)

    def activations(self, pixels: Tensor, layer: Layer = Layer.DENSEBLOCK4) -> Tensor:
        """A dense block's output, after the normalisation and ReLU that follow it.

        Args:
            pixels: [B, 1, S, S], uint8 or float, in [0, 255].
            layer: which block.

        Returns:
            [B, 1024, S / 32, S / 32] after the last block, which is what the classifier averages; [B, 1024, S / 16,
            S / 16] after the third, [B, 512, S / 8, S / 8] after the second. At least 0.
        """
        values = self._normalised(pixels)
        for name, module in self.features.named_children():
            if name == _FOLLOWING[layer]:
                norm = module if isinstance(module, nn.BatchNorm2d) else module.get_submodule("norm")
                return functional.relu(norm(values))
            values = module(values)
        raise AssertionError(layer)  # every layer is followed by a module of the network

    def _normalised(self, pixels: Tensor) -> Tensor:
        scaled = pixels.to(self.mean.dtype) / 255.0
        first = next(self.parameters())
        values = ((scaled - self.mean) / self.std).to(first.dtype)
        if first.is_contiguous(memory_format=torch.channels_last):
            values = values.contiguous(memory_format=torch.channels_last)
        return values

    def logits_after(self, activations: Tensor, layer: Layer = Layer.DENSEBLOCK4) -> Tensor:
        """Logits [B, 5] float32 of what `activations` gave for the same layer: the rest of the network."""
        if layer is Layer.DENSEBLOCK4:
            return self.head(activations)
        modules = dict(self.features.named_children())
        names = list(modules)
        transition = modules[_FOLLOWING[layer]]
        assert isinstance(transition, Transition)
        values = transition.after_norm(activations)
        for name in names[names.index(_FOLLOWING[layer]) + 1 :]:
            values = modules[name](values)
        return self.head(functional.relu(values))

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
        _draw_start(network)
    if init != "none":
        weights = _imagenet_weights() if init == "imagenet" else _weights_in(Path(init))
        _load_backbone(network, weights, init)
    return network


def _draw_start(network: ChestNet) -> None:
    """He et al. 2015 for convolutions, as torchvision does; the classifier's weights keep torch's own start."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    nn.init.zeros_(network.classifier.bias)


def _imagenet_weights() -> dict[str, Tensor]:
    from torchvision.models import DenseNet121_Weights

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
    renamed = {OLD_NAME.sub(r"\1\2", name): tensor for name, tensor in weights.items()}
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
