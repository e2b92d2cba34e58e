"""Open what runs a bundle's network: torch, or an export that is there. Nothing is written."""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from cxrtool.choices import Backend, Precision
from cxrtool.engines.device import choose_runtime, sigmoid
from cxrtool.engines.engine import Engine, torch_engine
from cxrtool.engines.precision import CLOSE_ENOUGH, bf16_pays, keep_difference, kept_difference
from cxrtool.errors import RequestError
from cxrtool.model.bundle import Bundle, BundleHeader
from cxrtool.phantoms.check_images import check_images
from cxrtool.settings import RuntimeSettings

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from cxrtool.engines.export_record import Export


def open_engine(bundle: Bundle, settings: RuntimeSettings, reported: bool) -> Engine:
    """The engine that `settings` ask for.

    Args:
        bundle: whose network it runs.
        settings: backend, device and precision.
        reported: figures that are written down stay with torch in float32 on ``auto``.

    Raises:
        RequestError: what is asked for is not here.
        ModelError: an export cannot be opened.
    """
    backend, wished = settings.backend, settings.precision
    if wished is Precision.INT8 and backend in (Backend.AUTO, Backend.TORCH):
        raise RequestError("--precision int8 is not torch's", "Use --backend openvino.")
    if backend in (Backend.ONNX, Backend.OPENVINO):
        return _asked_for(bundle, settings, reported)
    runtime = choose_runtime(settings)
    if backend is Backend.AUTO and runtime.device.type == "cpu" and wished is not Precision.BF16 and not reported:
        found = _beside(bundle, wished)
        if found is not None:
            return found

    def make(precision: Precision) -> Engine:
        return torch_engine(bundle.network, replace(runtime, bf16=precision is Precision.BF16))

    return _in_precision(make, wished, not reported and bf16_pays(runtime.device), bundle.header, runtime.device)


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


def _asked_for(bundle: Bundle, settings: RuntimeSettings, reported: bool) -> Engine:
    """The engine of a backend that the user named.

    Raises:
        RequestError: the backend cannot do what is asked for, or the bundle has no export that fits.
    """
    from cxrtool.engines.export_record import FORMAT_OF, Export, export_for
    from cxrtool.engines.runtimes import refuse_what_it_cannot

    backend, precision = settings.backend, settings.precision
    refuse_what_it_cannot(backend, precision, settings.device)
    found = export_for(bundle, backend, precision)
    if not isinstance(found, Export):
        more = " --precision int8 --images FOLDER" if precision is Precision.INT8 else ""
        raise RequestError(found, f"Make it: cxr export {bundle.path} --format {FORMAT_OF[backend]}{more}")
    return _of_export(found, backend, precision, bundle.header, reported)


def _of_export(export: "Export", backend: Backend, wished: Precision, header: BundleHeader, reported: bool) -> Engine:
    from cxrtool.engines.runtimes import has_bf16, runtime_engine

    cpu = torch.device("cpu")
    fast = not reported and bf16_pays(cpu) and has_bf16(backend)
    return _in_precision(lambda precision: runtime_engine(export, backend, precision), wished, fast, header, cpu)


def _beside(bundle: Bundle, wished: Precision) -> Engine | None:
    """What runs the export beside the bundle that still is the bundle's, where that is faster than torch.

    OpenVINO's is always. ONNX Runtime has no bf16, so torch is faster where the CPU has bf16 units and may use them.
    """
    from cxrtool.engines.export_record import FORMAT_OF, can_run, find_export, is_of

    torch_is_faster = wished is Precision.AUTO and bf16_pays(torch.device("cpu"))
    for backend in (Backend.OPENVINO,) if torch_is_faster else (Backend.OPENVINO, Backend.ONNX):
        export = find_export(bundle, FORMAT_OF[backend], Precision.FP32)
        if export is None or not can_run(FORMAT_OF[backend]):
            continue
        if not is_of(export, bundle):
            log.info("%s was made from other weights and is not used; make it again with cxr export", export.path)
            continue
        return _of_export(export, backend, wished, bundle.header, reported=False)
    return None


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
