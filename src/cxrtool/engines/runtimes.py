"""Engines that run an exported network: ONNX Runtime and OpenVINO, both on the CPU."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cxrtool.choices import Backend, Device, ExportFormat, Precision
from cxrtool.engines.engine import HowRun
from cxrtool.engines.export_record import FORMAT_OF, Export, refuse_without_library
from cxrtool.errors import ModelError, RequestError


class OnnxEngine:
    """An ONNX file in ONNX Runtime, in float32, with as many threads as torch has.

    Args:
        path: of the ``.onnx`` file.

    Raises:
        RequestError: the library is not installed.
        ModelError: it cannot read the file.
    """

    def __init__(self, path: Path) -> None:
        refuse_without_library(ExportFormat.ONNX)
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # errors: warnings about the machine are no news to the user
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # noqa: BLE001 - its exceptions have no base of their own
            raise _cannot_open(path, error) from None
        self.how = HowRun(Backend.ONNX.value, Precision.FP32.value)

    def logits(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits [B, 5] float32 of pixels [B, 1, S, S] uint8."""
        logits: NDArray[np.float32] = self._session.run(["logits"], {"pixels": np.ascontiguousarray(pixels)})[0]
        return logits


@contextmanager
def without_telemetry() -> Iterator[None]:
    """Hide openvino_telemetry from what is first imported here: it reports each use over the network, unasked.

    OpenVINO does so when it is imported, from a forked process; NNCF likewise. Both do without it when it cannot be
    imported.
    """
    name = "openvino_telemetry"
    before = sys.modules.get(name)
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]
        if before is not None:
            sys.modules[name] = before


@cache
def _openvino_core() -> Any:
    """One for the process, and for ever.

    On a CPU with AMX each core gives its thread an alternate stack for signals and takes it away when it is freed. Two
    that are not freed in reverse order leave the thread on a stack that is gone, and the next signal that Python
    handles, of a child's end say, ends the process by SIGSEGV (openvino 2026.4).
    """
    with without_telemetry():
        import openvino

    return openvino.Core()


class OpenVinoEngine:
    """An OpenVINO model on the CPU, with as many threads as torch has.

    Args:
        path: of the ``.xml`` file.
        precision: fp32 and int8 run as the file is; bf16 runs a float32 file with bfloat16 units.

    Raises:
        RequestError: the library is not installed, or this CPU has no bfloat16.
        ModelError: it cannot read the file.
    """

    def __init__(self, path: Path, precision: Precision) -> None:
        refuse_without_library(ExportFormat.OPENVINO)
        core = _openvino_core()
        if precision is Precision.BF16 and not has_bf16(Backend.OPENVINO):
            raise RequestError("--precision bf16: OpenVINO finds no bfloat16 in this CPU", "Use fp32, or int8.")
        options: dict[str, Any] = {
            # What is not int8 stays in float32: OpenVINO's own choice would be bf16 where the CPU has it.
            "INFERENCE_PRECISION_HINT": "bf16" if precision is Precision.BF16 else "f32",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
        }
        try:
            self._network = core.compile_model(core.read_model(path), "CPU", options)
        except Exception as error:  # noqa: BLE001 - RuntimeError today, others in its history
            raise _cannot_open(path, error) from None
        self.how = HowRun(Backend.OPENVINO.value, precision.value)

    def logits(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits [B, 5] float32 of pixels [B, 1, S, S] uint8."""
        # A request of this call's own: calling the compiled model would share one between threads.
        request = self._network.create_infer_request()
        result = request.infer({"pixels": np.ascontiguousarray(pixels)})
        logits: NDArray[np.float32] = np.array(result["logits"], dtype=np.float32)
        return logits


@cache
def has_bf16(backend: Backend) -> bool:
    """Whether this backend computes in bfloat16 on this CPU; its library must be installed.

    OpenVINO lists what the processor has, though its kernels may be kept from it (``ONEDNN_MAX_CPU_ISA``), and then
    refuses the network. So a small convolution is compiled as well, in about 20 ms.
    """
    if backend is not Backend.OPENVINO:
        return False
    core = _openvino_core()
    return "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES") and _compiles_in_bf16(core)


def _compiles_in_bf16(core: Any) -> bool:
    from openvino import Model, opset8

    pixels = opset8.parameter([1, 8, 8, 8], np.float32)
    kernel = opset8.constant(np.ones((8, 8, 3, 3), dtype=np.float32))
    layer = opset8.convolution(pixels, kernel, [1, 1], [1, 1], [1, 1], [1, 1])
    try:
        core.compile_model(Model([layer], [pixels], "probe"), "CPU", {"INFERENCE_PRECISION_HINT": "bf16"})
    except Exception:  # noqa: BLE001 - RuntimeError today, others in its history
        return False
    return True


def _cannot_open(path: Path, error: Exception) -> ModelError:
    reason = " ".join(str(error).split())[:200]
    return ModelError(f"{path} cannot be opened: {reason}", "Export it again: cxr export MODEL --format ...")


def runtime_engine(export: Export, backend: Backend, precision: Precision) -> OnnxEngine | OpenVinoEngine:
    """What runs `export` in `precision`.

    Raises:
        RequestError: the library, or what the precision needs, is not here.
        ModelError: the file cannot be read.
    """
    if backend is Backend.ONNX:
        return OnnxEngine(export.path)
    return OpenVinoEngine(export.path, precision)


def refuse_what_it_cannot(backend: Backend, precision: Precision, device: Device) -> None:
    """Refuse, before anything is loaded, what this backend does not do.

    Raises:
        RequestError: a GPU, a precision that it lacks, or its library is missing.
    """
    if device is Device.CUDA:
        raise RequestError(f"--backend {backend} runs on the CPU", "Leave out --device cuda, or use --backend torch.")
    if backend is Backend.ONNX and precision not in (Precision.AUTO, Precision.FP32):
        raise RequestError(f"--backend onnx runs in fp32, not {precision}", "Use --backend openvino.")
    refuse_without_library(FORMAT_OF[backend])
