"""Someone else's checkpoint (.pt, .pth) as a bundle: the one place where a pickle is opened, and only for weights.

torch's ``weights_only`` reader runs no code of the file: it knows tensors and plain values, and refuses the rest. It
is said aloud at each call, since TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD overrides only a call that says nothing.
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
from cxrtool.errors import ModelError, RequestError
from cxrtool.files import sha256_of_file
from cxrtool.findings import FINDINGS, UncertaintyPolicy, find_finding
from cxrtool.model.bundle import BundleHeader, current_versions, now, open_bundle, refuse_broken, save_bundle
from cxrtool.model.densenet import OLD_NAME, ChestNet

# Before it the reader let code through: CVE-2025-32434.
_SAFE_SINCE = (2, 6)
_LARGEST_FILE = 2 * 2**30
_LARGEST_PICKLE = 64 * 2**20
_STATE_KEYS = ("model_state_dict", "state_dict", "model", "network", "net", "weights")
_ADVICE = "Ask for a file of torch.save(network.state_dict(), FILE), with nothing else in it."
_FEATURES = re.compile(r"^((?:\w+\.)*?)(features\..*)$")


@dataclass(frozen=True)
class ImportSettings:
    """What a checkpoint does not say of itself.

    Attributes:
        findings: in the order of the file's outputs.
        image_size: that it was trained at.
        policy: that it was trained with, as text.
    """

    findings: tuple[str, ...] = FINDINGS
    image_size: int = 320
    policy: str = "u-ignore"


def parse_findings(text: str) -> tuple[str, ...]:
    """The five findings in the order that `text` names them, separated by commas.

    Raises:
        RequestError: one is unknown, missing or there twice.
    """
    names = tuple(find_finding(part) for part in text.split(","))
    if sorted(names) != sorted(FINDINGS):
        raise RequestError(f"--findings {text!r} does not name each finding once", f"They are {', '.join(FINDINGS)}.")
    return names


def import_checkpoint(source: Path, out: Path, wished: ImportSettings) -> BundleHeader:
    """Turn the checkpoint at `source` into the bundle `out`, and read that again.

    Args:
        source: a file of `torch.save`: a state dict, or a dict that holds one, of a DenseNet121 with five outputs in
            torchvision's names; prefixes such as ``module.`` and any name of the last layer are understood.
        out: the bundle; its header says that it was imported, and the file's digest, but no path.
        wished: what the file does not say.

    Raises:
        ModelError: the file is no such checkpoint, or holds more than weights. Nothing is written.
        CxrError: `out` cannot be written.
    """
    preprocessing = Preprocessing(image_size=wished.image_size)
    with torch.device("meta"):
        network = ChestNet(preprocessing)
    weights = _named_as(network, _state_in(source, read_checkpoint(source)), source)
    order = [wished.findings.index(finding) for finding in FINDINGS]
    for name in ("classifier.weight", "classifier.bias"):
        weights[name] = weights[name][order].contiguous()
    refuse_broken(weights, str(source))
    header = BundleHeader(
        findings=FINDINGS,
        preprocessing=preprocessing.to_dict(),
        policy=str(UncertaintyPolicy.parse(wished.policy)),
        blank=Blank.NEGATIVE,
        views="frontal",
        training={"imported_from_sha256": sha256_of_file(source), "findings_in_file": list(wished.findings)},
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
    """What a file of `torch.save` holds, as far as that is tensors and plain values.

    Raises:
        ModelError: it is missing, no zip file of torch's, packed, too large, or holds anything else.
    """
    _check_file(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - torch.load has no common base for a file that is no weights
        raise ModelError(
            f"{path} holds more than weights, or is damaged ({type(error).__name__}); nothing of it was run", _ADVICE
        ) from None


def _check_file(path: Path) -> None:
    """Before torch opens it: what it would unpack must be no more than what is there."""
    release = tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2])
    if release < _SAFE_SINCE:
        raise ModelError(
            f"{path}: torch {torch.__version__} does not read weights safely (CVE-2025-32434)",
            "Upgrade: pip install -U 'torch>=2.6'.",
        )
    if not path.is_file():
        raise ModelError(f"{path} is no file", "Give a checkpoint (.pt, .pth).")
    size = path.stat().st_size
    if size > _LARGEST_FILE:
        raise ModelError(f"{path} has {size:,} bytes; at most {_LARGEST_FILE:,} are read", _ADVICE)
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}", "Check the path and its rights.") from None
    except Exception:  # noqa: BLE001 - zipfile raises BadZipFile, and struct's and others' errors on bad bytes
        raise ModelError(
            f"{path} is no checkpoint of torch since 1.6 (a zip file); older ones can carry code", _ADVICE
        ) from None
    pickles = sum(member.file_size for member in members if member.filename.endswith(".pkl"))
    packed = any(member.compress_type != zipfile.ZIP_STORED for member in members)
    if packed or sum(member.file_size for member in members) > size or pickles > _LARGEST_PICKLE:
        raise ModelError(f"{path} unpacks to more than it holds; torch writes no such file", _ADVICE)


def _state_in(path: Path, content: Any) -> dict[str, Tensor]:
    """The state dict in what was read: itself, or under one of the usual keys."""
    if isinstance(content, Mapping):
        for key in _STATE_KEYS:
            if isinstance(content.get(key), Mapping):
                return _state_in(path, content[key])
        tensors = {str(name): tensor for name, tensor in content.items() if isinstance(tensor, Tensor)}
        if tensors:
            return tensors
    raise ModelError(f"{path} holds no state dict", f"Looked for tensors by name, and under {', '.join(_STATE_KEYS)}.")


def _named_as(network: ChestNet, state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """`state` under `network`'s names, in float32."""
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
        raise ModelError(f"{path} holds several networks ({', '.join(sorted(prefixes))})", _ADVICE)
    found |= _classifier(head, path)
    own = network.state_dict()
    for name, tensor in own.items():
        if name.endswith("num_batches_tracked"):
            found.setdefault(name, torch.zeros((), dtype=torch.int64))
        if name not in found:
            raise ModelError(f"{path} is no DenseNet121: tensor {name!r} is missing", _ADVICE)
        if found[name].shape != tensor.shape:
            raise ModelError(
                f"{path} is no DenseNet121: tensor {name!r} has shape {tuple(found[name].shape)}, "
                f"not {tuple(tensor.shape)}",
                _ADVICE,
            )
    extra = sorted(set(found) - set(own))
    if extra:
        raise ModelError(f"{path} is no DenseNet121: tensor {extra[0]!r} is none of its own", _ADVICE)
    return {name: _plain(found[name], own[name].dtype) for name in own}


def _plain(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.detach().to(dtype).contiguous().clone()


def _classifier(head: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The last layer, whatever it is called: ``classifier``, ``fc``, ``model.classifier.1``."""
    matrices = [name for name, tensor in head.items() if name.endswith("weight") and tensor.dim() == 2]
    if len(matrices) != 1 or set(head) != {matrices[0], matrices[0].removesuffix("weight") + "bias"}:
        names: Sequence[str] = sorted(head) or ("none",)
        raise ModelError(
            f"{path} does not end in one linear layer with a bias; beside its features it has {', '.join(names[:4])}",
            "Only a plain DenseNet121 with a linear layer can be imported.",
        )
    (name,) = matrices
    outputs = len(head[name])
    if outputs != len(FINDINGS):
        raise ModelError(
            f"{path} has {outputs} outputs; these findings are {len(FINDINGS)}",
            "Use it as a start instead: save its weights as .safetensors and cxr train --init FILE.",
        )
    return {"classifier.weight": head[name], "classifier.bias": head[name.removesuffix("weight") + "bias"]}
