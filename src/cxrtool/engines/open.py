"""Open an engine for a bundle's network: torch, or an existing export. Nothing is written."""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from cxrtool.choices import Backend, Precision
from cxrtool.engines.device import choose_runtime, sigmoid
from cxrtool.engines.engine import Engine, torch_engine
from cxrtool.engines.precision import CLOSE_ENOUGH, bf16_is_faster, load_difference, store_difference
from cxrtool.engines.threads import use_threads
from cxrtool.errors import RequestError
from cxrtool.model.bundle import Bundle
from cxrtool.model.header import BundleHeader
from cxrtool.phantoms.check_images import check_images
from cxrtool.settings import RuntimeSettings

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from cxrtool.engines.export_record import Export


def open_engine(bundle: Bundle, settings: RuntimeSettings, reported: bool) -> Engine:
    """Open the engine that `settings` request.

    Args:
        bundle: bundle with the network.
        settings: backend, device and precision.
        reported: whether metrics are computed from its output; ``auto`` then means torch in float32.

    Raises:
        RequestError: the device, library, precision or export is not available.
        ModelError: an export cannot be opened.
    """
    backend, precision = settings.backend, settings.precision
    use_threads(settings)
    if precision is Precision.INT8 and backend in (Backend.AUTO, Backend.TORCH):
        raise RequestError("--precision int8 does not work with torch", "Use --backend openvino.")
    if backend in (Backend.ONNX, Backend.OPENVINO):
        return _requested_engine(bundle, settings, reported)
    runtime = choose_runtime(settings)
    if backend is Backend.AUTO and runtime.device.type == "cpu" and precision is not Precision.BF16 and not reported:
        found = _engine_beside(bundle, precision)
        if found is not None:
            return found

    def make(precision: Precision) -> Engine:
        return torch_engine(bundle.network, replace(runtime, bf16=precision is Precision.BF16))

    fast = not reported and bf16_is_faster(runtime.device)
    return _engine_in_precision(make, precision, fast, bundle.header, runtime.device)


def _engine_in_precision(
    make: Callable[[Precision], Engine],
    precision: Precision,
    bf16_is_fast: bool,
    header: BundleHeader,
    device: torch.device,
) -> Engine:
    """Return an engine in `precision`; ``auto`` means bf16 if that is fast and close enough, else fp32."""
    if precision is not Precision.AUTO:
        return make(precision)
    if not bf16_is_fast:
        return make(Precision.FP32)
    faster = make(Precision.BF16)
    return faster if _is_close(faster, make, header, device) else make(Precision.FP32)


def _requested_engine(bundle: Bundle, settings: RuntimeSettings, reported: bool) -> Engine:
    """Return the engine of a backend that the user named.

    Raises:
        RequestError: the backend does not support the settings, or there is no matching export.
    """
    from cxrtool.engines.export_record import FORMAT_OF, Export, export_for
    from cxrtool.engines.runtimes import check_supported

    backend, precision = settings.backend, settings.precision
    check_supported(backend, precision, settings.device)
    found = export_for(bundle, backend, precision)
    if not isinstance(found, Export):
        options = " --precision int8 --images FOLDER" if precision is Precision.INT8 else ""
        raise RequestError(found, f"Export it: cxr export {bundle.path} --format {FORMAT_OF[backend]}{options}")
    return _export_engine(found, backend, precision, bundle.header, reported)


def _export_engine(
    export: "Export", backend: Backend, precision: Precision, header: BundleHeader, reported: bool
) -> Engine:
    from cxrtool.engines.runtimes import has_bf16, runtime_engine

    cpu = torch.device("cpu")
    fast = not reported and bf16_is_faster(cpu) and has_bf16(backend)
    return _engine_in_precision(lambda chosen: runtime_engine(export, backend, chosen), precision, fast, header, cpu)


def _engine_beside(bundle: Bundle, precision: Precision) -> Engine | None:
    """Return an engine for a matching export beside the bundle if it is faster than torch, else None.

    OpenVINO always is. ONNX Runtime has no bf16, so torch is faster if the CPU has bf16 units and may use them.
    """
    from cxrtool.engines.export_record import FORMAT_OF, can_run, find_export, is_made_from

    torch_is_faster = precision is Precision.AUTO and bf16_is_faster(torch.device("cpu"))
    for backend in (Backend.OPENVINO,) if torch_is_faster else (Backend.OPENVINO, Backend.ONNX):
        export = find_export(bundle, FORMAT_OF[backend], Precision.FP32)
        if export is None or not can_run(FORMAT_OF[backend]):
            continue
        if not is_made_from(export, bundle):
            log.info("%s was made from other weights and is not used; run cxr export again", export.path)
            continue
        return _export_engine(export, backend, precision, bundle.header, reported=False)
    return None


def _is_close(faster: Engine, make: Callable[[Precision], Engine], header: BundleHeader, device: torch.device) -> bool:
    """Whether probabilities on phantoms change by at most `CLOSE_ENOUGH`; the difference is cached."""
    backend = faster.how.backend
    difference = load_difference(header.weights_sha256, device, backend)
    if difference is None:
        pixels = check_images(header.image_preprocessing)
        ours, theirs = (sigmoid(engine.logits(pixels)) for engine in (make(Precision.FP32), faster))
        difference = float(np.abs(ours - theirs).max())
        store_difference(header.weights_sha256, device, backend, difference)
    if difference > CLOSE_ENOUGH:
        log.warning("bf16 changes this model's probabilities by up to %.3f, so fp32 is used", difference)
    return difference <= CLOSE_ENOUGH
