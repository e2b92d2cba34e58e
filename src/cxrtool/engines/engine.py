"""What turns pixels into logits: torch, or an export that another runtime reads."""

import logging
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from cxrtool.choices import Backend, Precision
from cxrtool.data.batches import manifest_batches, split_batches
from cxrtool.data.radiograph import Reading
from cxrtool.engines.device import Runtime, choose_runtime, sigmoid
from cxrtool.engines.precision import CLOSE_ENOUGH, bf16_pays, check_images, keep_difference, kept_difference
from cxrtool.errors import CxrError, RequestError, first_line, is_out_of_memory
from cxrtool.findings import FINDINGS
from cxrtool.model.bundle import BundleHeader
from cxrtool.model.densenet import ChestNet
from cxrtool.model.folding import inference_copy
from cxrtool.progress import Progress, ProgressCallback, ignore_progress
from cxrtool.settings import RuntimeSettings

if TYPE_CHECKING:
    from cxrtool.data.manifest import Manifest
    from cxrtool.data.pixel_cache import PixelCache
    from cxrtool.engines.export_record import Export


log = logging.getLogger(__name__)

_LARGEST_BLOCK = 32 * 2**20
"""Bytes. glibc gives larger blocks back to the kernel and faults them in again: 1.3 times as slow at 320 px."""


@dataclass(frozen=True)
class HowRun:
    """What results say of the engine behind them.

    Attributes:
        backend: ``torch``, ``onnx`` or ``openvino``.
        precision: ``fp32``, ``bf16`` or ``int8``.
    """

    backend: str
    precision: str

    def to_dict(self) -> dict[str, object]:
        """Plain values by name."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.backend} in {self.precision}"


class Engine(Protocol):
    """One network, ready to run; threads may share it."""

    @property
    def how(self) -> HowRun:
        """Backend and precision."""

    def logits(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits [B, 5] float32 of pixels [B, 1, S, S] uint8."""


@dataclass(frozen=True)
class TorchEngine:
    """The network itself.

    Attributes:
        network: as `torch_engine` makes it.
        runtime: where and how.
    """

    network: ChestNet
    runtime: Runtime

    @property
    def how(self) -> HowRun:
        """torch, in fp32 or bf16."""
        return HowRun(Backend.TORCH.value, self.runtime.precision)

    def logits(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits [B, 5] float32 of pixels [B, 1, S, S] uint8."""
        try:
            with torch.inference_mode():
                parts = [self.network(self.runtime.tensor(part)) for part in self._parts(pixels)]
                logits: NDArray[np.float32] = torch.cat(parts).cpu().numpy()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            less = f"try half of it, {len(pixels) // 2}" if len(pixels) > 1 else "there is no smaller one"
            raise CxrError(
                f"memory has run out at {len(pixels)} images at once ({first_line(error)})",
                f"Take a smaller runtime.batch_size (--batch-size outside of train): {less}.",
            ) from error
        return logits

    def _parts(self, pixels: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
        """On a CPU, as few images at once as keep every block of memory below `_LARGEST_BLOCK`."""
        if self.runtime.device.type != "cpu":
            return [pixels]
        block = 4 * 64 * (pixels.shape[-1] // 2) ** 2  # what the first convolution gives, the largest: float32 always
        return np.array_split(pixels, math.ceil(len(pixels) / max(1, _LARGEST_BLOCK // block)))


def open_engine(
    path: Path, network: ChestNet, header: BundleHeader, settings: RuntimeSettings, reported: bool
) -> Engine:
    """The engine that `settings` ask for.

    Args:
        path: the bundle's file.
        network: of that bundle, as `load_bundle` gives it.
        header: likewise.
        settings: backend, device and precision.
        reported: figures that are written down stay with torch in float32 on ``auto``.

    Raises:
        RequestError: what is asked for is not here.
        ModelError: an export cannot be made or opened.
    """
    backend, wished = settings.backend, settings.precision
    if wished is Precision.INT8 and backend in (Backend.AUTO, Backend.TORCH):
        raise RequestError("--precision int8 is not torch's", "Use --backend openvino.")
    if backend in (Backend.ONNX, Backend.OPENVINO):
        return _asked_for(path, header, settings, reported)
    runtime = choose_runtime(settings)
    if backend is Backend.AUTO and runtime.device.type == "cpu" and wished is not Precision.BF16 and not reported:
        found = _beside(path, header, wished)
        if found is not None:
            return found

    def make(precision: Precision) -> Engine:
        return torch_engine(network, replace(runtime, bf16=precision is Precision.BF16))

    return _in_precision(make, wished, not reported and bf16_pays(runtime.device), header, runtime.device)


def _in_precision(
    make: Callable[[Precision], Engine],
    wished: Precision,
    bf16_is_fast: bool,
    header: BundleHeader,
    device: torch.device,
) -> Engine:
    """The engine in the wished precision; on ``auto`` in bf16 where that is fast and close enough, else in fp32."""
    if wished is not Precision.AUTO:
        return make(wished)
    if not bf16_is_fast:
        return make(Precision.FP32)
    faster = make(Precision.BF16)
    return faster if _is_close(faster, make, header, device) else make(Precision.FP32)


# What needs an export is imported where it is needed: most runs do without, and these modules build on this one.


def _asked_for(path: Path, header: BundleHeader, settings: RuntimeSettings, reported: bool) -> Engine:
    """The engine of a backend that the user named; its float32 export is made where there is none that fits."""
    from cxrtool.engines.export import export_for
    from cxrtool.engines.runtimes import refuse_what_it_cannot

    refuse_what_it_cannot(settings.backend, settings.precision, settings.device)
    with export_for(path, header, settings.backend, settings.precision) as export:
        return _of_export(export, settings.backend, settings.precision, header, reported)


def _of_export(export: "Export", backend: Backend, wished: Precision, header: BundleHeader, reported: bool) -> Engine:
    from cxrtool.engines.runtimes import has_bf16, runtime_engine

    cpu = torch.device("cpu")
    fast = not reported and bf16_pays(cpu) and has_bf16(backend)
    return _in_precision(lambda precision: runtime_engine(export, backend, precision), wished, fast, header, cpu)


def _beside(path: Path, header: BundleHeader, wished: Precision) -> Engine | None:
    """What runs the export beside the bundle that still is the bundle's, where that is faster than torch.

    OpenVINO's is always. ONNX Runtime has no bf16, so torch is faster where the CPU has bf16 units and may use them.
    """
    from cxrtool.engines.export_record import FORMAT_OF, can_run, find_export, is_of

    torch_is_faster = wished is Precision.AUTO and bf16_pays(torch.device("cpu"))
    for backend in (Backend.OPENVINO,) if torch_is_faster else (Backend.OPENVINO, Backend.ONNX):
        export = find_export(path, FORMAT_OF[backend], Precision.FP32)
        if export is None or not can_run(FORMAT_OF[backend]):
            continue
        if not is_of(export, header):
            log.info("%s was made from other weights and is not used; make it again with cxr export", export.path)
            continue
        return _of_export(export, backend, wished, header, reported=False)
    return None


def torch_engine(network: ChestNet, runtime: Runtime) -> TorchEngine:
    """`network` made ready to predict; it stays as it is."""
    dtype = torch.bfloat16 if runtime.bf16 else torch.float32
    return TorchEngine(runtime.place(inference_copy(network, dtype)), runtime)


def _is_close(faster: Engine, make: Callable[[Precision], Engine], header: BundleHeader, device: torch.device) -> bool:
    """Whether the model's probabilities move by at most `CLOSE_ENOUGH` on the phantoms it is checked on; kept."""
    backend = faster.how.backend
    difference = kept_difference(header.weights_sha256, device, backend)
    if difference is None:
        pixels = check_images(header.image_preprocessing)
        ours, theirs = (sigmoid(engine.logits(pixels)) for engine in (make(Precision.FP32), faster))
        difference = float(np.abs(ours - theirs).max())
        keep_difference(header.weights_sha256, device, backend, difference)
    if difference > CLOSE_ENOUGH:
        log.warning("bf16 moves this model's probabilities by up to %.3f: fp32 is used", difference)
    return difference <= CLOSE_ENOUGH


def manifest_logits(
    engine: Engine,
    manifest: "Manifest",
    reading: Reading,
    progress: ProgressCallback = ignore_progress,
    phase: str = "reading",
    cache: "PixelCache | None" = None,
) -> NDArray[np.float32]:
    """Logits of every image of a manifest, read from `cache` where one is given.

    Returns:
        [N, 5] float32, in the manifest's order.

    Raises:
        ImageError: an image cannot be read.
    """
    logits = np.empty((len(manifest), len(FINDINGS)), dtype=np.float32)
    groups = split_batches(np.arange(len(manifest), dtype=np.int64), reading.batch_size)
    done = 0
    for batch in manifest_batches(manifest, groups, reading, cache=cache):
        logits[batch.rows] = engine.logits(batch.pixels)
        done += len(batch.rows)
        progress(Progress(phase, done, len(manifest)))
    return logits
