"""One model, one file: weights and everything needed to use them, as safetensors with a JSON header.

A safetensors file contains a length, a JSON header and raw numbers, so reading an untrusted file runs no code. Pickles
are read only in `cxrtool.model.foreign`, for weights only.
"""

import hashlib
import io
import json
import os
import stat
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from cxrtool.errors import CxrError, ModelError
from cxrtool.files import cannot_write, replacing, to_json, write_bytes
from cxrtool.locks import changing
from cxrtool.model.densenet import ChestNet
from cxrtool.model.header import FORMAT_VERSION, BundleHeader
from cxrtool.model.hub import BUNDLE_NAME as BUNDLE_NAME
from cxrtool.model.tensor_file import TYPE_NAMES, tensor_file

EXPORTS_NAME = "export"
"""Folder beside a bundle with its exports."""
_KEY, _DIGEST_KEY = "cxrtool", "cxrtool-sha256"
_LARGEST_HEADER = 16 * 2**20
_LARGEST_FILE = 64 * 2**20
"""More than the largest header and the weights; a larger file is not a bundle and is not read further."""
_ATTEMPTS = 3
"""How often a header is written if programs that take no lock replace the file each time."""


def save_bundle(path: Path, weights: Mapping[str, Tensor], header: BundleHeader) -> BundleHeader:
    """Write a bundle atomically; return the header as written, with the digest of the weights.

    It waits while another process changes the header of the bundle in `path`.

    Raises:
        WriteError: the file cannot be written.
    """
    content, signed = _encoded(weights, header)
    with _changing(path):
        write_bytes(path, *content)
    return signed


def _encoded(weights: Mapping[str, Tensor], header: BundleHeader) -> tuple[list[memoryview], BundleHeader]:
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(weights.items())}
    signed = header.model_copy(
        update={"weights_sha256": digest_of_weights(contiguous), "format_version": FORMAT_VERSION}
    )
    text = to_json(signed.model_dump(mode="json"))
    return tensor_file(contiguous, {_KEY: text, _DIGEST_KEY: _digest_of_text(text)}), signed


@contextmanager
def _changing(path: Path) -> Iterator[None]:
    """Keep other processes from writing the bundle inside the block.

    Raises:
        WriteError: the folder cannot be written.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(changing(path))
        except OSError as error:
            raise cannot_write(path, error) from error
        yield


def _digest_of_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class Bundle:
    """An opened bundle; header and weights come from one read of the file.

    Attributes:
        path: the file.
        sha256: digest of the file.
        header: header of the bundle.
        network: network with its weights, in eval mode, without gradients, on the CPU. Copy it before changing it.
        exports: folder in which exports of the network are searched.
    """

    path: Path
    sha256: str
    header: BundleHeader
    network: ChestNet
    exports: Path
    _stamp: "_Stamp"


_Stamp = tuple[int, int, int, int]


def open_bundle(path: Path) -> Bundle:
    """Read a bundle, in one read of its file; if the file was replaced or written meanwhile, it is read once more.

    Raises:
        ModelError: the file is not a bundle, or has a newer version; tensors are missing, unexpected,
            of another shape or not finite; or a digest does not match.
    """
    before = _stamp_at(path)
    try:
        return _read_bundle(path)
    except ModelError:
        if _stamp_at(path) == before:
            raise
    # A copy onto the file is still running, or has just ended: neither the old bundle nor the new one was read.
    _wait_until_still(path)
    return _read_bundle(path)


def _stamp_at(path: Path) -> "_Stamp | None":
    """Return the stamp of the file, None if there is none."""
    try:
        return _stamp_of(path.stat())
    except OSError:
        return None


def _wait_until_still(path: Path, still: float = 0.1, longest: float = 5.0) -> None:
    """Wait until the file has not changed for `still` seconds, at most `longest` seconds."""
    end = time.monotonic() + longest
    seen: _Stamp | None = None
    while time.monotonic() < end:
        now = _stamp_at(path)
        if now is not None and now == seen:
            return
        seen = now
        time.sleep(still)


def _read_bundle(path: Path) -> Bundle:
    with _open(path) as file:
        status = os.fstat(file.fileno())
        content = file.read(_LARGEST_FILE)
    metadata, tensors = _read_start(path, io.BytesIO(content), status.st_size)
    header = _header_of(path, metadata)
    with torch.device("meta"):  # shapes only: initialising weights would take half a second
        network = ChestNet(header.image_preprocessing, len(header.findings))
    _check_tensors(path, tensors, network)
    weights = _load_tensors(path, content)
    if digest_of_weights(weights) != header.weights_sha256:
        raise ModelError(
            f"model {path} is damaged: its weights do not match their digest", "Copy it again.", code="model-damaged"
        )
    refuse_broken(weights, f"model {path}")
    network.load_state_dict(weights, assign=True)
    return Bundle(
        path=path,
        sha256=hashlib.sha256(content).hexdigest(),
        header=header,
        network=network.eval().requires_grad_(False),
        exports=path.parent / EXPORTS_NAME,
        _stamp=_stamp_of(status),
    )


def read_header(path: Path) -> BundleHeader:
    """Read the header of a bundle without its weights.

    Raises:
        ModelError: the file is not a bundle, or has a newer version.
    """
    with _open(path) as file:
        metadata, _ = _read_start(path, file, os.fstat(file.fileno()).st_size)
    return _header_of(path, metadata)


@contextmanager
def _open(path: Path) -> Iterator[BinaryIO]:
    """Open the file for reading.

    Raises:
        ModelError: the file cannot be read.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would block
            raise _not_a_bundle(path, "it is not a regular file")
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise ModelError(f"model {path}: {error.strerror}", "Give a run folder or a bundle file.") from None


def _read_start(path: Path, file: BinaryIO, size: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read the header of a safetensors file of `size` bytes: its metadata, and the description of each tensor.

    Raises:
        ModelError: it is not a safetensors file, or is incomplete.
    """
    start = file.read(8)
    if len(start) < 8:
        raise _not_a_bundle(path, "it is empty or incomplete")
    (length,) = struct.unpack("<Q", start)
    if length > min(_LARGEST_HEADER, size - 8):  # never allocate a stated terabyte
        raise _not_a_bundle(path, "it is not a safetensors file, or is incomplete")
    try:
        tensors = json.loads(file.read(length))
        metadata = tensors.pop("__metadata__", {})
        end = max((entry["data_offsets"][1] for entry in tensors.values()), default=0)
        texts = all(isinstance(text, str) for text in metadata.values())
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        raise _not_a_bundle(path, "its safetensors header is not valid") from None
    if not texts or end != size - 8 - length:
        raise _not_a_bundle(path, "its size does not match its safetensors header: it is incomplete or damaged")
    return metadata, tensors


def _header_of(path: Path, metadata: Mapping[str, str]) -> BundleHeader:
    text = metadata.get(_KEY)
    if text is None:
        raise ModelError(
            f"{path} has weights but no cxrtool header", "Use it as initial weights: cxr train --init FILE."
        )
    return _parse_header(path, text, metadata.get(_DIGEST_KEY))


def _stamp_of(status: os.stat_result) -> "_Stamp":
    """Return inode, size and both times, which change when a file is replaced or written."""
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _not_a_bundle(path: Path, reason: str) -> ModelError:
    return ModelError(
        f"model {path} is not a bundle: {' '.join(reason.split())}",
        "Give a model.safetensors written by cxr train; convert .pt and .pth files with cxr import.",
    )


def _parse_header(path: Path, text: str, digest: str | None) -> BundleHeader:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: also for integers of more than 4,300 digits
        raise _not_a_bundle(path, f"its header is not JSON ({error})") from None
    newer = content.get("format_version") if isinstance(content, dict) else None
    if isinstance(newer, int) and newer > FORMAT_VERSION:
        raise ModelError(
            f"model {path} has bundle version {newer}; this version of cxrtool reads up to {FORMAT_VERSION}",
            "Upgrade: pip install -U cxrtool.",
        )
    if digest != _digest_of_text(text) and not (digest is None and newer == 1):
        raise ModelError(
            f"model {path} is damaged: its header does not match its digest", "Copy it again.", code="model-damaged"
        )
    try:
        header = BundleHeader.model_validate(content)
        _ = header.image_preprocessing
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise _not_a_bundle(path, f"header key {where or '(all)'}: {first['msg']}") from None
    except CxrError as error:
        raise _not_a_bundle(path, f"header key preprocessing: {error.message}") from None
    return header


def refuse_broken(weights: Mapping[str, Tensor], origin: str) -> None:
    """Refuse weights that would make every probability NaN.

    Raises:
        ModelError: a weight is not finite, or a variance is negative; the message begins with `origin`.
    """
    for name, tensor in weights.items():
        if not torch.isfinite(tensor).all():
            raise ModelError(f"{origin} has weights that are not finite ({name})", "Train it again.")
        if name.endswith("running_var") and (tensor < 0).any():
            raise ModelError(f"{origin} has a negative variance ({name})", "Train it again.")


def _check_tensors(path: Path, tensors: Mapping[str, Any], network: ChestNet) -> None:
    """Check that tensors have the names, types and shapes of `network`.

    Raises:
        ModelError: one does not.
    """
    own = network.state_dict()
    odd = sorted(set(tensors) ^ set(own))
    if odd:
        raise ModelError(
            f"model {path} is not a DenseNet121 of cxrtool: tensor {odd[0]!r} is "
            f"{'unexpected' if odd[0] in tensors else 'missing'}",
            "Train with cxrtool, or use it as initial weights: cxr train --init FILE.",
        )
    for name, tensor in own.items():
        dtype, shape = tensors[name].get("dtype"), tensors[name].get("shape")
        if dtype != TYPE_NAMES[tensor.dtype]:
            raise _not_a_bundle(path, f"tensor {name!r} is not of type {TYPE_NAMES[tensor.dtype]}")
        if shape != list(tensor.shape):
            found = tuple(shape) if isinstance(shape, list) else shape
            raise ModelError(
                f"model {path}: tensor {name!r} has shape {found}, not {tuple(tensor.shape)}",
                "The model has another number of findings or another architecture; use one trained with cxrtool.",
            )


def _load_tensors(path: Path, content: bytes) -> dict[str, Tensor]:
    try:
        return load(content)
    except (SafetensorError, ValueError) as error:
        raise _not_a_bundle(path, str(error)) from None


def change_header(bundle: Bundle, **changes: object) -> BundleHeader:
    """Change header fields of the bundle's file, atomically, and keep its weights; see `update_header`."""
    return update_header(bundle, lambda header: header.model_copy(update=changes))


def update_header(bundle: Bundle, change: Callable[[BundleHeader], BundleHeader]) -> BundleHeader:
    """Replace the header of the bundle's file by `change` of it, atomically, and keep its weights.

    Other processes wait meanwhile. If the file has changed since it was opened, it is read again, so that what other
    commands have stored is kept.

    Raises:
        ModelError: the file now has other weights, or is not a bundle.
        WriteError: the file cannot be written.
    """
    current = bundle
    with _changing(bundle.path):
        for _ in range(_ATTEMPTS):
            if not _is_unchanged(current):
                current = open_bundle(bundle.path)
            if current.header.weights_sha256 != bundle.header.weights_sha256:
                break
            content, header = _encoded(current.network.state_dict(), change(current.header))
            with suppress(_ChangedError), replacing(bundle.path) as partial:
                with partial.open("wb") as file:
                    file.writelines(content)
                # The lock does not stop a program without it, such as cp.
                if not _is_unchanged(current):
                    raise _ChangedError
                return header
    raise ModelError(f"model {bundle.path} was replaced by another model while in use", "Run the command again.")


class _ChangedError(Exception):
    """The file has changed since it was read."""


def _is_unchanged(bundle: Bundle) -> bool:
    return _stamp_at(bundle.path) == bundle._stamp  # None if it is missing: reading it again reports the error


def digest_of_weights(weights: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of names, types, shapes and numbers, sorted by name, in hex."""
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        contiguous = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {contiguous.dtype} {tuple(contiguous.shape)};".encode())
        digest.update(contiguous.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
