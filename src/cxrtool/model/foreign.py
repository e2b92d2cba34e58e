"""Conversion of DenseNet121s that were trained elsewhere into bundles."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cxrtool.choices import Blank, Fit
from cxrtool.data.preprocessing import Preprocessing
from cxrtool.errors import ModelError, RequestError
from cxrtool.files import sha256_of_file
from cxrtool.findings import CHEXPERT5, XRV18, Findings, UncertaintyPolicy, canonical
from cxrtool.model.bundle import open_bundle, refuse_broken, save_bundle
from cxrtool.model.checkpoint import Checkpoint, read_checkpoint
from cxrtool.model.densenet import OLD_NAME, ChestNet
from cxrtool.model.golden import golden_of
from cxrtool.model.header import DEFAULT_THRESHOLD, BundleHeader, current_versions, now
from cxrtool.model.torchxrayvision import MEAN, SIZE, STD, XrvWeights, operating_points, weights_named

_WIDTH = 1024
"""Features of a DenseNet121 before its last layer."""
_FEATURES = re.compile(r"^((?:\w+\.)*?)(features\..*)$")
_LOSS = re.compile(r"(^|\.)(loss|criterion|objective|metric)\w*\.|(^|\.)(pos_weight|class_weights?)$")
"""Names of what a trainer keeps beside the network: weights of a loss, counts of a metric."""
_OPERATING_POINTS = re.compile(r"(^|\.)op_threshs$")


@dataclass(frozen=True)
class ImportSettings:
    """Facts about a checkpoint that it does not record.

    Attributes:
        findings: findings in the order of the network's outputs. None takes those that the file names, else the usual
            five for five outputs, and torchxrayvision's for 18.
        keep: findings to keep; None keeps all.
        image_size: width and height in pixels of its training images; None is 320, or 224 for torchxrayvision's.
        fit: how images filled the network's input; None stretches, or crops for torchxrayvision's.
        policy: uncertainty policy of its training, as text.
        prefix: start of the names of the network to take, such as ``ema.``, where a file has several.
        torchxrayvision: name of torchxrayvision's weights, such as ``chex``, for their operating points; None
            recognises it by the file's name.
    """

    findings: Findings | None = None
    keep: Findings | None = None
    image_size: int | None = None
    fit: Fit | None = None
    policy: str = "u-ignore"
    prefix: str | None = None
    torchxrayvision: str | None = None


def import_checkpoint(source: Path, out: Path, settings: ImportSettings) -> BundleHeader:
    """Convert the checkpoint at `source` into the bundle `out`, and read that again to check it.

    A network with one input channel is taken for one of torchxrayvision: grey values from -1024 to 1024.

    Args:
        source: a file of `torch.save` or a safetensors file. It holds weights of a DenseNet121, or a dict with them, or
            a whole network. Prefixes such as ``module.``, old names and any name of the last layer are understood.
        out: path of the bundle. Its header records that it was imported and the digest of `source`, but no path.
        settings: facts that the file does not record.

    Raises:
        ModelError: the file has no weights of a DenseNet121. Nothing is written.
        RequestError: the findings do not fit the outputs.
        CxrError: `out` cannot be written.
    """
    checkpoint = read_checkpoint(source)
    found = _split(checkpoint, source, settings.prefix)
    one_channel = _channels(found.features, source) == 1
    published = None
    if one_channel and len(found.bias) == len(XRV18):
        published = weights_named(source, settings.torchxrayvision)
    names = _names_of_outputs(found, checkpoint, source, settings, published)
    preprocessing = _preprocessing(settings, one_channel)
    with torch.device("meta"):
        network = ChestNet(preprocessing, len(names))
    weights = _fitted(network, found, source)
    kept, order = _kept(names, settings.keep)
    for name in ("classifier.weight", "classifier.bias"):
        weights[name] = weights[name][order].contiguous()
    refuse_broken(weights, str(source))
    points, origin = _thresholds(found, published)
    thresholds = (
        None if points is None else {finding: points[place] for finding, place in zip(kept, order, strict=True)}
    )
    header = BundleHeader(
        findings=kept.names,
        preprocessing=preprocessing.to_dict(),
        policy=str(UncertaintyPolicy.parse(settings.policy)),
        blank=Blank.NEGATIVE,
        views="frontal",
        thresholds=thresholds,
        training={
            "imported_from_sha256": sha256_of_file(source),
            "findings_in_file": list(names),
            "weights_found_in": checkpoint.place,
            "thresholds_from": origin,
        },
        golden=golden_of(weights, preprocessing),
        data={},
        pos_weight=None,
        metrics={},
        versions=current_versions(),
        run="imported",
        created=now(),
    )
    save_bundle(out, weights, header)
    return open_bundle(out).header


@dataclass(frozen=True, eq=False)
class _Network:
    """Tensors of one network: features under the usual names, the last layer, and operating points if it has some."""

    features: dict[str, Tensor]
    weight: Tensor
    bias: Tensor
    points: Tensor | None


def _split(checkpoint: Checkpoint, path: Path, prefix: str | None) -> _Network:
    by_prefix: dict[str, dict[str, Tensor]] = {}
    head: dict[str, Tensor] = {}
    for name, tensor in checkpoint.tensors.items():
        match = _FEATURES.match(name)
        if match is None:
            head[name] = tensor
        else:
            by_prefix.setdefault(match[1], {})[OLD_NAME.sub(r"\1\2", match[2])] = tensor
    if not by_prefix:
        names = ", ".join(list(checkpoint.tensors)[:3])
        raise ModelError(
            f"{path} is not a DenseNet121: it has no tensor named features.*, only such as {names}",
            "Only a DenseNet121 in torchvision's names can be imported.",
        )
    if len(by_prefix) > 1 and prefix is None:
        raise ModelError(
            f"{path} contains several networks, named {', '.join(sorted(repr(one) for one in by_prefix))}",
            f"Choose one with --prefix, such as --prefix '{max(by_prefix)}'.",
        )
    chosen = prefix if prefix is not None else next(iter(by_prefix))
    if chosen not in by_prefix:
        raise RequestError(
            f"{path} has no network named {chosen!r}", f"It has {', '.join(sorted(repr(one) for one in by_prefix))}."
        )
    if len(by_prefix) > 1:
        others = tuple(one for one in by_prefix if one != chosen and len(one) > len(chosen))
        head = {
            name: tensor
            for name, tensor in head.items()
            if name.startswith(chosen) and not (others and name.startswith(others))
        }
    points = next((tensor for name, tensor in head.items() if _OPERATING_POINTS.search(name)), None)
    own = {name: t for name, t in head.items() if not _LOSS.search(name) and not _OPERATING_POINTS.search(name)}
    return _Network(by_prefix[chosen], *_last_layer(own, path), points)


def _last_layer(head: Mapping[str, Tensor], path: Path) -> tuple[Tensor, Tensor]:
    """Return weight and bias of the last layer, whatever its name: ``classifier``, ``fc``, ``model.classifier.1``."""
    matrices = [name for name, tensor in head.items() if name.endswith("weight") and tensor.dim() == 2]
    bias = f"{matrices[0].removesuffix('weight')}bias" if matrices else ""
    if len(matrices) != 1 or set(head) != {matrices[0], bias}:
        raise ModelError(
            f"{path} does not end in one linear layer with a bias; besides its features it has "
            f"{', '.join(sorted(head)[:4]) or 'none'}",
            "Only a plain DenseNet121 with a linear layer can be imported.",
        )
    weight = head[matrices[0]]
    if weight.shape[1] != _WIDTH:
        raise ModelError(
            f"{path} is not a DenseNet121: its last layer takes {weight.shape[1]} features, not {_WIDTH}",
            "DenseNet161, 169 and 201 cannot be imported.",
        )
    return weight, head[bias]


def _channels(features: Mapping[str, Tensor], path: Path) -> int:
    first = features.get("features.conv0.weight")
    channels = 3 if first is None or first.dim() != 4 else first.shape[1]
    if channels not in (1, 3):
        raise ModelError(f"{path} reads images of {channels} channels", "One and three channels can be imported.")
    return channels


def _names_of_outputs(
    found: _Network, checkpoint: Checkpoint, path: Path, settings: ImportSettings, published: XrvWeights | None
) -> tuple[str, ...]:
    """Return the name of each output, empty for one without a meaning.

    Raises:
        RequestError: they are not known, or are too few or too many.
    """
    outputs = len(found.weight)
    known: tuple[str, ...] = tuple(name and canonical(name) for name in checkpoint.findings)
    if settings.findings is not None:
        known = settings.findings.names
    elif published is not None:
        known = published.findings
    elif len(known) != outputs:
        known = {len(CHEXPERT5): CHEXPERT5.names, len(XRV18): XRV18.names}.get(outputs, ())
    if len(known) != outputs:
        named = f"{len(known)} findings are named" if known else "does not name them"
        raise RequestError(
            f"{path} has {outputs} outputs, {'but ' if known else 'and '}{named}",
            "Name them in the order of the outputs, such as --findings chexpert14 or --findings nih14.",
        )
    return known


def _kept(names: tuple[str, ...], keep: Findings | None) -> tuple[Findings, list[int]]:
    """Return the findings to keep and the place of each among the outputs; the usual five come in their usual order."""
    present = Findings(tuple(name for name in names if name))
    kept = present if keep is None else Findings(tuple(present.find(name) for name in keep))
    if set(kept) == set(CHEXPERT5):
        kept = CHEXPERT5
    return kept, [names.index(finding) for finding in kept]


def _preprocessing(settings: ImportSettings, one_channel: bool) -> Preprocessing:
    if not one_channel:
        return Preprocessing(image_size=settings.image_size or 320, fit=settings.fit or Fit.STRETCH)
    return Preprocessing(settings.image_size or SIZE, (MEAN,), (STD,), fit=settings.fit or Fit.CROP)


def _thresholds(found: _Network, published: XrvWeights | None) -> tuple[list[float] | None, str]:
    """Return the threshold of each output, and where it comes from; None if neither file nor library gives any."""
    if found.points is not None and found.points.shape == found.bias.shape:
        points, origin = found.points.double().tolist(), "operating points in the file"
    elif published is not None:
        points, origin = (
            list(operating_points(published)),
            f"operating points of torchxrayvision's weights {published.name}",
        )
    else:
        return None, ""
    return [point if 0 <= point <= 1 else DEFAULT_THRESHOLD for point in points], origin  # NaN where there is none


def _fitted(network: ChestNet, found: _Network, path: Path) -> dict[str, Tensor]:
    """Return the tensors under the names and with the types of `network`."""
    advice = "Only a DenseNet121 in torchvision's names can be imported."
    tensors = found.features | {"classifier.weight": found.weight, "classifier.bias": found.bias}
    own = network.state_dict()
    for name, tensor in own.items():
        if name.endswith("num_batches_tracked"):
            tensors.setdefault(name, torch.zeros((), dtype=torch.int64))
        if name not in tensors:
            raise ModelError(f"{path} is not a DenseNet121: tensor {name!r} is missing", advice)
        if tensors[name].shape != tensor.shape:
            raise ModelError(
                f"{path} is not a DenseNet121: tensor {name!r} has shape {tuple(tensors[name].shape)}, "
                f"not {tuple(tensor.shape)}",
                advice,
            )
    extra = sorted(set(tensors) - set(own))
    if extra:
        raise ModelError(f"{path} is not a DenseNet121: tensor {extra[0]!r} does not belong to one", advice)
    return {name: tensors[name].detach().to(tensor.dtype).contiguous().clone() for name, tensor in own.items()}
