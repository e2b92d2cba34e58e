"""DenseNet121 (Huang et al. 2017, arXiv:1608.06993) with one logit per finding."""

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
from cxrtool.findings import CHEXPERT5
from cxrtool.model.hub import fetch, is_on_hub

GROWTH = 32
"""Channels that each layer of a block adds."""
LAYERS = (6, 12, 24, 16)
"""Layers per dense block. The 121 layers are: 2 x 58 in blocks, 3 transitions, the first one and the classifier."""

# torchvision's published weights say norm.1 and conv.2 where its modules are called norm1 and conv2.
OLD_NAME = re.compile(r"^(.*denselayer\d+\.(?:norm|conv))\.([12]\..*)$")

_FOLLOWING = {
    Layer.DENSEBLOCK2: "transition2",
    Layer.DENSEBLOCK3: "transition3",
    Layer.DENSEBLOCK4: "norm5",
}
"""The module whose normalisation and ReLU follow a dense block."""


class DenseLayer(nn.Module):
    """BatchNorm, ReLU and a 1 x 1 convolution to 4 x `GROWTH` channels, then the same with a 3 x 3 one to `GROWTH`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, 4 * GROWTH, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(4 * GROWTH)
        self.conv2 = nn.Conv2d(4 * GROWTH, GROWTH, 3, padding=1, bias=False)

    def forward(self, values: Tensor) -> Tensor:
        """Return the new channels [B, GROWTH, H, W] for [B, C, H, W]."""
        narrow = self.conv1(functional.relu(self.norm1(values), inplace=True))
        new: Tensor = self.conv2(functional.relu(self.norm2(narrow), inplace=True))
        return new


class DenseBlock(nn.Module):
    """Layers that each receive the block's input and all channels added before them."""

    def __init__(self, channels: int, layers: int) -> None:
        super().__init__()
        for number in range(layers):
            self.add_module(f"denselayer{number + 1}", DenseLayer(channels + number * GROWTH))

    def forward(self, values: Tensor) -> Tensor:
        """Return [B, C + layers x GROWTH, H, W] for [B, C, H, W]."""
        for layer in self.children():
            values = torch.cat((values, layer(values)), 1)
        return values


class Transition(nn.Module):
    """The step between two blocks, which halves channels, height and width."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.conv = nn.Conv2d(channels, channels // 2, 1, bias=False)
        self.pool = nn.AvgPool2d(2, stride=2)

    def forward(self, values: Tensor) -> Tensor:
        """Return [B, C / 2, H / 2, W / 2] for [B, C, H, W]."""
        return self.after_norm(functional.relu(self.norm(values), inplace=True))

    def after_norm(self, activations: Tensor) -> Tensor:
        """Run the rest of `forward` on normalised and rectified `activations`."""
        halved: Tensor = self.pool(self.conv(activations))
        return halved


class ChestNet(nn.Module):
    """DenseNet121 with one logit per finding and grey pixels as input.

    Parameters have the same names as torchvision's and, for the same seed, the same initial values. The network is
    written out here because importing torchvision takes as long as importing torch, and because heatmaps need it in two
    parts. It normalises its input, so that a batch travels to the device as uint8, a twelfth of the bytes of a
    normalised float RGB batch, and no caller can forget to normalise.

    Args:
        preprocessing: provides mean and standard deviation per channel, of pixels scaled to [0, 1].
        outputs: number of findings, F.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, preprocessing: Preprocessing, outputs: int = len(CHEXPERT5)) -> None:
        super().__init__()
        self.features = nn.Sequential(
            OrderedDict(
                conv0=nn.Conv2d(preprocessing.channels, 2 * GROWTH, 7, stride=2, padding=3, bias=False),
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
        self.classifier = nn.Linear(channels, outputs)
        # On the CPU even if the parameters are on the meta device (`open_bundle`), because no file contains these two.
        for name, values in (("mean", preprocessing.mean), ("std", preprocessing.std)):
            self.register_buffer(name, torch.tensor(values, device="cpu").view(1, -1, 1, 1), persistent=False)

    def activations(self, pixels: Tensor, layer: Layer = Layer.DENSEBLOCK4) -> Tensor:
        """Return a dense block's output after the normalisation and ReLU that follow it.

        Args:
            pixels: [B, 1, S, S], uint8 or float, in [0, 255].
            layer: the block.

        Returns:
            Values of at least 0: [B, 1024, S / 32, S / 32] after the last block, which the classifier averages;
            [B, 1024, S / 16, S / 16] after the third; [B, 512, S / 8, S / 8] after the second.
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
        """Run the rest of the network on the output of `activations` for the same layer: logits [B, F] float32."""
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
        """Return logits [B, F] of the last block's activations, computed in float32 whatever their type."""
        with torch.autocast(activations.device.type, enabled=False):
            pooled = activations.float().mean(dim=(2, 3))
            logits: Tensor = self.classifier(pooled)
        return logits

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits [B, F] float32 for pixels [B, 1, S, S] in [0, 255]."""
        return self.head(self.activations(pixels))


def build_network(preprocessing: Preprocessing, init: str, seed: int, outputs: int = len(CHEXPERT5)) -> ChestNet:
    """Create a network to train.

    Args:
        preprocessing: how its images are prepared.
        init: ``imagenet`` (torchvision's weights, downloaded once and kept in TORCH_HOME), ``none`` (random), or
            a ``.safetensors`` file or ``hf:OWNER/NAME`` on the Hugging Face hub: a bundle, or weights of a DenseNet121
            in torchvision's names. A classifier in it that does not have F outputs is ignored.
        seed: random seed of initial weights, including the classifier's.
        outputs: number of findings, F.

    Raises:
        RequestError: the weights cannot be read or downloaded.
        ModelError: the file's weights do not fit DenseNet121.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = ChestNet(preprocessing, outputs)
        _draw_weights(network)
    if init != "none":
        weights = (
            _imagenet_weights() if init == "imagenet" else _weights_in(fetch(init) if is_on_hub(init) else Path(init))
        )
        _load_backbone(network, weights, init)
    return network


def initial_file(init: str) -> Path | None:
    """Return the file that initial weights are in; None for ``imagenet`` and ``none``.

    Raises:
        CxrError: they are on the hub and cannot be fetched.
    """
    if init in ("imagenet", "none"):
        return None
    return fetch(init) if is_on_hub(init) else Path(init)


def _draw_weights(network: ChestNet) -> None:
    """Initialise convolutions as in He et al. 2015, like torchvision; the classifier keeps PyTorch's default."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    nn.init.zeros_(network.classifier.bias)


def _imagenet_weights() -> dict[str, Tensor]:
    from torchvision.models import DenseNet121_Weights

    weights = DenseNet121_Weights.IMAGENET1K_V1
    try:
        # With torchvision's default, weights_only=False, a pickle put in the file's place would be run.
        return dict(weights.get_state_dict(progress=False, check_hash=True, weights_only=True))
    except (URLError, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", error)
        raise RequestError(
            f"the ImageNet weights could not be downloaded from {weights.url} ({reason})",
            f"Start from random weights with --init none, from a file with --init FILE.safetensors, or put "
            f"{Path(weights.url).name} in {Path(torch.hub.get_dir()) / 'checkpoints'}.",
        ) from None
    except Exception as error:  # noqa: BLE001 - torch.load's errors on bad files have no common base class
        kept = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
        raise RequestError(
            f"the ImageNet weights in {kept} cannot be read ({type(error).__name__})",
            "Remove that file; it is then downloaded again.",
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
            "Pickles (.pt, .pth) cannot be used here: save the weights with safetensors.torch.save_file.",
        ) from None


def _load_backbone(network: ChestNet, weights: dict[str, Tensor], origin: str) -> None:
    renamed = {OLD_NAME.sub(r"\1\2", name): tensor for name, tensor in weights.items()}
    own = network.state_dict()
    for name in ("classifier.weight", "classifier.bias"):
        if name in renamed and renamed[name].shape != own[name].shape:
            del renamed[name]
    unexpected = [n for n, t in renamed.items() if n not in own or t.shape != own[n].shape]
    missing = [n for n in own if n not in renamed and not n.startswith("classifier.") and "num_batches" not in n]
    if unexpected or missing:
        raise ModelError(
            f"--init {origin} does not contain the weights of a DenseNet121: {(unexpected + missing)[0]!r} "
            f"{'is unknown or has another shape' if unexpected else 'is missing'}",
            "Use weights with torchvision's names (features.*, classifier.*), without a prefix.",
        )
    network.load_state_dict(renamed, strict=False)
