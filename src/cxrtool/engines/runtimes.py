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
from cxrtool.engines.threads import LoadedIn
from cxrtool.errors import ModelError, RequestError


class OnnxEngine:
    """Engine that runs an ONNX file in ONNX Runtime, in float32, with as many threads as torch.

    Args:
        path: the ``.onnx`` file.

    Raises:
        RequestError: the library is not installed.
        ModelError: the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        refuse_without_library(ExportFormat.ONNX)
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # errors only: its warnings concern the machine, not the model
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # noqa: BLE001 - its exceptions have no common base class
            raise _cannot_open(path, error) from None
        self.how = HowRun(Backend.ONNX.value, Precision.FP32.value)
        self._loaded_in = LoadedIn("ONNX Runtime")

    def logits(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return logits [B, 5] float32 for pixels [B, 1, S, S] uint8.

        Raises:
            CxrError: the model was loaded before a fork.
        """
        self._loaded_in.check()
        logits: NDArray[np.float32] = self._session.run(["logits"], {"pixels": np.ascontiguousarray(pixels)})[0]
        return logits


@contextmanager
def without_telemetry() -> Iterator[None]:
    """Make openvino_telemetry fail to import inside the block, because it reports each use over the network.

    OpenVINO sends a report from a forked process when it is imported, and so does NNCF. Both work without the package.
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
    """Return the one core, which is kept for the life of the process.

    On a CPU with AMX, each core installs an alternate signal stack in its thread and removes it when it is freed. If
    two cores are not freed in reverse order, the thread keeps a stack that no longer exists, and the next signal that
    Python handles, such as the end of a child process, crashes the process with SIGSEGV (openvino 2026.4).
    """
    with without_telemetry():
        import openvino

    return openvino.Core()


class OpenVinoEngine:
    """Engine that runs an OpenVINO model on the CPU, with as many threads as torch.

    Args:
        path: the ``.xml`` file.
        precision: fp32 and int8 run the file in its own precision; bf16 runs a float32 file on bfloat16 units.

    Raises:
        RequestError: the library is not installed, or this CPU has no bfloat16.
        ModelError: the file cannot be opened.
    """

    def __init__(self, path: Path, precision: Precision) -> None:
        refuse_without_library(ExportFormat.OPENVINO)
        core = _openvino_core()
        if precision is Precision.BF16 and not has_bf16(Backend.OPENVINO):
            raise RequestError("--precision bf16: OpenVINO cannot use bfloat16 on this CPU", "Use --precision fp32.")
        options: dict[str, Any] = {
            # Otherwise OpenVINO would use bf16 for layers that are not int8 if the CPU has it.
            "INFERENCE_PRECISION_HINT": "bf16" if precision is Precision.BF16 else "f32",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
        }
        try:
            self._network = core.compile_model(core.read_model(path), "CPU", options)
        except Exception as error:  # noqa: BLE001 - RuntimeError today, others in its history
            raise _cannot_open(path, error) from None
        self.how = HowRun(Backend.OPENVINO.value, precision.value)
        self._loaded_in = LoadedIn("OpenVINO")

    def logits(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return logits [B, 5] float32 for pixels [B, 1, S, S] uint8.

        Raises:
            CxrError: the model was loaded before a fork.
        """
        self._loaded_in.check()
        # A new request per call, because the compiled model's own request is shared between threads.
        request = self._network.create_infer_request()
        result = request.infer({"pixels": np.ascontiguousarray(pixels)})
        logits: NDArray[np.float32] = np.array(result["logits"], dtype=np.float32)
        return logits


@cache
def has_bf16(backend: Backend) -> bool:
    """Whether this backend can compute in bfloat16 on this CPU; its library must be installed.

    OpenVINO lists bfloat16 if the processor has it, even if ``ONEDNN_MAX_CPU_ISA`` keeps its kernels from using it, and
    then cannot compile the network. A small convolution is therefore compiled as a test, in about 20 ms.
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
    return ModelError(f"{path} cannot be opened: {reason}", "Export it again: cxr export MODEL --format FORMAT.")


def runtime_engine(export: Export, backend: Backend, precision: Precision) -> OnnxEngine | OpenVinoEngine:
    """Return the engine that runs `export` in `precision`.

    Raises:
        RequestError: the library is not installed, or this CPU does not support the precision.
        ModelError: the file cannot be opened.
    """
    if backend is Backend.ONNX:
        return OnnxEngine(export.path)
    return OpenVinoEngine(export.path, precision)


def check_supported(backend: Backend, precision: Precision, device: Device) -> None:
    """Check, before anything is loaded, that a backend supports these settings.

    Raises:
        RequestError: a GPU or an unsupported precision is requested, or the backend's library is not installed.
    """
    if device is Device.CUDA:
        raise RequestError(f"--backend {backend} runs on the CPU", "Leave out --device cuda, or use --backend torch.")
    if backend is Backend.ONNX and precision not in (Precision.AUTO, Precision.FP32):
        raise RequestError(f"--backend onnx runs in fp32, not {precision}", "Use --backend openvino.")
    refuse_without_library(FORMAT_OF[backend])
