"""Helpers of several tests."""

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from cxrtool.choices import Device, Level, Precision
from cxrtool.evaluation.table import PredictionTable
from cxrtool.findings import FINDINGS
from cxrtool.model.bundle import open_bundle, save_bundle
from cxrtool.resolved_settings import ResolvedSettings, load_settings
from cxrtool.settings import RuntimeSettings

EXACT = RuntimeSettings(device=Device.CPU, precision=Precision.FP32)
"""Settings for exact comparisons; by default predict would use bf16 on CPUs with bf16 units."""


def tiny_training(data: Path, **more: object) -> ResolvedSettings:
    """Return settings for a short training: two epochs at 32 px from random weights; `more` as ``train__epochs=3``."""
    overrides: dict[str, object] = {
        "data.root": data,
        "train.init": "none",
        "train.image_size": 32,
        "train.epochs": 2,
        "train.batch_size": 16,
        "train.lr": 1e-3,
        "runtime.device": "cpu",
    }
    return load_settings(overrides | {key.replace("__", "."): value for key, value in more.items()}, environ={})


def link_radiographs(phantoms: Path, folder: Path, count: int) -> list[Path]:
    """Fill a new folder with `count` links to a few radiographs, and return the links."""
    folder.mkdir()
    good = sorted((phantoms / "test").rglob("*frontal.jpg"))
    links = [folder / f"{number:04d}.jpg" for number in range(count)]
    for number, link in enumerate(links):
        link.hardlink_to(good[number % len(good)])
    return links


def random_table(count: int, seed: int = 0) -> PredictionTable:
    """Return a study-level table of valid with masked cells and tied probabilities."""
    rng = np.random.default_rng(seed)
    names = tuple(f"patient{n}/study1" for n in range(count))
    targets = rng.integers(0, 2, (count, 5)).astype(np.float32)
    noisy = np.clip(0.3 * targets + 0.7 * rng.random((count, 5)), 0, 1)
    return PredictionTable(
        ids=names,
        patients=tuple(name.split("/")[0] for name in names),
        studies=names,
        images=np.ones(count, dtype=np.int64),
        split="valid",
        level=Level.STUDY,
        sheet_sha256="",
        model_sha256="",
        scores=np.round(noisy, 2),
        targets=targets,
        mask=rng.random((count, 5)) < 0.9,
    )


def table_of(targets: ArrayLike, probabilities: ArrayLike, split: str = "valid") -> PredictionTable:
    """Return a study-level table with the same values for all five findings and one patient per row."""
    truth, scores = np.asarray(targets, dtype=np.float32), np.asarray(probabilities, dtype=np.float64)
    names = tuple(f"patient{n}/study1" for n in range(len(truth)))
    return PredictionTable(
        ids=names,
        patients=tuple(name.split("/")[0] for name in names),
        studies=names,
        images=np.ones(len(truth), dtype=np.int64),
        split=split,
        level=Level.STUDY,
        sheet_sha256="",
        model_sha256="",
        scores=np.repeat(scores[:, None], 5, axis=1),
        targets=np.repeat(truth[:, None], 5, axis=1),
        mask=np.ones((len(truth), 5), dtype=np.bool_),
    )


def dicom_of(values: NDArray[Any], **tags: object) -> FileDataset:
    """Return a DICOM radiograph with these stored values."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dataset.Modality, dataset.BodyPartExamined, dataset.ViewPosition = "DX", "CHEST", "PA"
    dataset.Rows, dataset.Columns = values.shape[:2]
    dataset.SamplesPerPixel = 3 if values.ndim == 3 else 1
    dataset.PhotometricInterpretation = "RGB" if values.ndim == 3 else "MONOCHROME2"
    if values.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = 8 * values.dtype.itemsize
    dataset.BitsStored = 12 if values.dtype.itemsize == 2 else 8
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = 0
    dataset.PixelData = values.tobytes()
    for name, value in tags.items():
        setattr(dataset, name, value)
    return dataset


def with_a_most_probable(model: Path, finding: str, copy: Path) -> Path:
    """Copy a bundle and change it to give `finding` by far the largest probability for every image."""
    bundle = open_bundle(model)
    network, header = bundle.network, bundle.header
    network.classifier.weight.data /= 10
    network.classifier.bias.data = torch.tensor([2.0 if name == finding else -2.0 for name in FINDINGS])
    copy.parent.mkdir(parents=True, exist_ok=True)
    save_bundle(copy, network.state_dict(), header)
    return copy


def bundle_parts(path: Path) -> tuple[dict[str, Any], bytes]:
    """Return the header and the numbers of a safetensors file."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def write_parts(path: Path, header: dict[str, Any], data: bytes) -> None:
    """Write a safetensors file from its header and numbers."""
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def change_header(path: Path, **changes: object) -> None:
    """Change the header of a bundle and update its digest, as an attacker could."""
    header, data = bundle_parts(path)
    metadata = header["__metadata__"]
    metadata["cxrtool"] = json.dumps(json.loads(metadata["cxrtool"]) | changes)
    metadata["cxrtool-sha256"] = hashlib.sha256(metadata["cxrtool"].encode()).hexdigest()
    write_parts(path, header, data)
