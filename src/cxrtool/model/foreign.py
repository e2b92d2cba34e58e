"""Conversion of checkpoints from elsewhere (.pt, .pth) into bundles. Only here are pickles opened, for weights only.

torch's ``weights_only`` reader runs no code from the file: it accepts tensors and plain values and refuses the rest.
Every call passes it explicitly, because TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD overrides only the default.
"""

import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cxrtool.choices import Blank
from cxrtool.data.preprocessing import Preprocessing
from cxrtool.errors import ModelError
from cxrtool.files import sha256_of_file
from cxrtool.findings import CHEXPERT5, Findings, UncertaintyPolicy
from cxrtool.model.bundle import open_bundle, refuse_broken, save_bundle
from cxrtool.model.densenet import OLD_NAME, ChestNet
from cxrtool.model.header import BundleHeader, current_versions, now

# Earlier versions of the reader can be made to run code: CVE-2025-32434.
_FIRST_SAFE_TORCH = (2, 6)
_LARGEST_FILE = 2 * 2**30
_LARGEST_PICKLE = 64 * 2**20
_STATE_KEYS = ("model_state_dict", "state_dict", "model", "network", "net", "weights")
_ADVICE = "Ask for a file written by torch.save(network.state_dict(), FILE), with nothing else in it."
_FEATURES = re.compile(r"^((?:\w+\.)*?)(features\..*)$")


@dataclass(frozen=True)
class ImportSettings:
    """Facts about a checkpoint that it does not record.

    Attributes:
        findings: findings in the order of the network's outputs.
        image_size: width and height in pixels of its training images.
        policy: uncertainty policy of its training, as text.
    """

    findings: Findings = CHEXPERT5
    image_size: int = 320
    policy: str = "u-ignore"


def import_checkpoint(source: Path, out: Path, settings: ImportSettings) -> BundleHeader:
    """Convert the checkpoint at `source` into the bundle `out`, and read that again to check it.

    Args:
        source: a file written by `torch.save`. It holds a state dict, or a dict with one in it, of a DenseNet121 with
            an output for each finding, in torchvision's names. Prefixes such as ``module.`` and any name of the last
            layer are understood.
        out: path of the bundle. Its header records that it was imported and the digest of `source`, but no path.
        settings: facts that the file does not record.

    Raises:
        ModelError: the file is not such a checkpoint, or contains more than weights. Nothing is written.
        CxrError: `out` cannot be written.
    """
    preprocessing = Preprocessing(image_size=settings.image_size)
    with torch.device("meta"):
        network = ChestNet(preprocessing, len(settings.findings))
    weights = _with_names_of(network, _state_in(source, read_checkpoint(source)), source)
    # In the usual order, if they are the usual five.
    findings = CHEXPERT5 if set(settings.findings) == set(CHEXPERT5) else settings.findings
    order = [settings.findings.index(finding) for finding in findings]
    for name in ("classifier.weight", "classifier.bias"):
        weights[name] = weights[name][order].contiguous()
    refuse_broken(weights, str(source))
    header = BundleHeader(
        findings=findings.names,
        preprocessing=preprocessing.to_dict(),
        policy=str(UncertaintyPolicy.parse(settings.policy)),
        blank=Blank.NEGATIVE,
        views="frontal",
        training={"imported_from_sha256": sha256_of_file(source), "findings_in_file": list(settings.findings)},
        data={},
        pos_weight=None,
        metrics={},
        versions=current_versions(),
        run="imported",
        created=now(),
    )
    save_bundle(out, weights, header)
    return open_bundle(out).header


def read_checkpoint(path: Path) -> Any:
    """Return the content of a file written by `torch.save`: tensors and plain values.

    Raises:
        ModelError: the file is missing, too large, not an uncompressed zip file of torch, or contains anything else.
    """
    _check_file(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - torch.load's errors on bad files have no common base class
        raise ModelError(
            f"{path} contains more than weights, or is damaged ({type(error).__name__}); nothing of it was run", _ADVICE
        ) from None


def _check_file(path: Path) -> None:
    """Check the file before torch opens it; in particular, it must not unpack to more than its size."""
    release = tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2])
    if release < _FIRST_SAFE_TORCH:
        raise ModelError(
            f"cannot read {path}: torch {torch.__version__} does not load weights safely (CVE-2025-32434)",
            "Upgrade: pip install -U 'torch>=2.6'.",
        )
    if not path.is_file():
        raise ModelError(f"{path} is not a file", "Name a checkpoint (.pt, .pth).")
    size = path.stat().st_size
    if size > _LARGEST_FILE:
        raise ModelError(f"{path} has {size:,} bytes; the limit is {_LARGEST_FILE:,}", _ADVICE)
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}", "Check the path and its permissions.") from None
    except Exception:  # noqa: BLE001 - zipfile raises BadZipFile, struct.error and others on bad bytes
        raise ModelError(
            f"{path} is not a checkpoint of torch 1.6 or later (a zip file); older ones can contain code", _ADVICE
        ) from None
    pickles = sum(member.file_size for member in members if member.filename.endswith(".pkl"))
    packed = any(member.compress_type != zipfile.ZIP_STORED for member in members)
    if packed or sum(member.file_size for member in members) > size or pickles > _LARGEST_PICKLE:
        raise ModelError(f"{path} unpacks to more than its own size; torch never writes such a file", _ADVICE)


def _state_in(path: Path, content: Any) -> dict[str, Tensor]:
    """Return the state dict: `content` itself, or what it holds under one of the usual keys."""
    if isinstance(content, Mapping):
        for key in _STATE_KEYS:
            if isinstance(content.get(key), Mapping):
                return _state_in(path, content[key])
        tensors = {str(name): tensor for name, tensor in content.items() if isinstance(tensor, Tensor)}
        if tensors:
            return tensors
    raise ModelError(
        f"{path} contains no state dict", f"Tensors were looked for at the top and under {', '.join(_STATE_KEYS)}."
    )


def _with_names_of(network: ChestNet, state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Return the tensors of `state` under the names and with the types of `network`."""
    found: dict[str, Tensor] = {}
    prefixes: set[str] = set()
    head: dict[str, Tensor] = {}
    for name, tensor in state.items():
        match = _FEATURES.match(name)
        if match is None:
            head[name] = tensor
            continue
        prefixes.add(match[1])
        found[OLD_NAME.sub(r"\1\2", match[2])] = tensor
    if len(prefixes) > 1:
        raise ModelError(f"{path} contains several networks ({', '.join(sorted(prefixes))})", _ADVICE)
    found |= _classifier(head, path, len(network.classifier.bias))
    own = network.state_dict()
    for name, tensor in own.items():
        if name.endswith("num_batches_tracked"):
            found.setdefault(name, torch.zeros((), dtype=torch.int64))
        if name not in found:
            raise ModelError(f"{path} is not a DenseNet121: tensor {name!r} is missing", _ADVICE)
        if found[name].shape != tensor.shape:
            raise ModelError(
                f"{path} is not a DenseNet121: tensor {name!r} has shape {tuple(found[name].shape)}, "
                f"not {tuple(tensor.shape)}",
                _ADVICE,
            )
    extra = sorted(set(found) - set(own))
    if extra:
        raise ModelError(f"{path} is not a DenseNet121: tensor {extra[0]!r} does not belong to one", _ADVICE)
    return {name: _plain(found[name], own[name].dtype) for name in own}


def _plain(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.detach().to(dtype).contiguous().clone()


def _classifier(head: Mapping[str, Tensor], path: Path, findings: int) -> dict[str, Tensor]:
    """Return the last layer, whatever its name: ``classifier``, ``fc``, ``model.classifier.1``."""
    matrices = [name for name, tensor in head.items() if name.endswith("weight") and tensor.dim() == 2]
    if len(matrices) != 1 or set(head) != {matrices[0], matrices[0].removesuffix("weight") + "bias"}:
        names: Sequence[str] = sorted(head) or ("none",)
        raise ModelError(
            f"{path} does not end in one linear layer with a bias; besides its features it has {', '.join(names[:4])}",
            "Only a plain DenseNet121 with a linear layer can be imported.",
        )
    (name,) = matrices
    outputs = len(head[name])
    if outputs != findings:
        raise ModelError(
            f"{path} has {outputs} outputs, but {findings} findings are named",
            "Name its findings in the order of its outputs: --findings chexpert14, or names separated by commas.",
        )
    return {"classifier.weight": head[name], "classifier.bias": head[name.removesuffix("weight") + "bias"]}
