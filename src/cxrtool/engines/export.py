"""Export of a bundle's network to formats of other runtimes; every written file is read again and compared."""

import contextlib
import io
import logging
import os
import secrets
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cxrtool.choices import ExportFormat, Precision
from cxrtool.data.images import list_images
from cxrtool.data.radiograph import Radiograph, Reading, radiograph_batches
from cxrtool.engines.device import sigmoid
from cxrtool.engines.export_record import (
    FORMAT_OF,
    CalibratedOn,
    Check,
    Export,
    ExportRecord,
    Pixels,
    export_for,
    export_name,
    library_versions,
    record_path,
    refuse_without_library,
)
from cxrtool.engines.runtimes import OnnxEngine, OpenVinoEngine, check_supported, without_telemetry
from cxrtool.errors import CxrError, RequestError
from cxrtool.files import sha256_of_file, sync_folder, write_json
from cxrtool.locks import locked_folder, sweep_partials
from cxrtool.model.bundle import Bundle
from cxrtool.model.densenet import ChestNet
from cxrtool.model.header import BundleHeader, current_versions, now
from cxrtool.phantoms.check_images import check_images
from cxrtool.progress import Progress, ProgressCallback, ignore_progress
from cxrtool.settings import DEFAULT_LIMITS, Limits, RuntimeSettings

log = logging.getLogger(__name__)

ALLOWED = {Precision.FP32: 1e-4, Precision.INT8: 0.2}
"""Largest allowed difference in probability from torch in float32, on phantoms."""
FEWEST_IMAGES = 32
"""For int8: with fewer, some unusual radiographs would determine the ranges of all activations."""
MOST_IMAGES = 300
"""For int8: NNCF's default."""


@dataclass(frozen=True)
class ExportSettings:
    """Options of an export.

    Attributes:
        kind: file format.
        precision: fp32, or int8 for OpenVINO.
        images: for int8, a folder of radiographs like those that the model will read.
        out: folder to write to; by default ``export/`` beside the bundle.
        workers: number of threads that read `images`.
        limits: upper limits on an image.
    """

    kind: ExportFormat
    precision: Precision = Precision.FP32
    images: Path | None = None
    out: Path | None = None
    workers: int = 2
    limits: Limits = DEFAULT_LIMITS


class ExportGraph(nn.Module):
    """The exported graph: pixels [B, 1, S, S] uint8 to logits and probabilities, [B, 5] float32 each.

    It contains the network as trained, not `inference_copy`: runtimes fold BatchNorms themselves, and a buffer written
    in slices would become hundreds of scatter operations.
    """

    def __init__(self, network: ChestNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Return both outputs by name."""
        logits = self.network(pixels)
        return {"logits": logits, "probabilities": torch.sigmoid(logits)}


def export_model(bundle: Bundle, settings: ExportSettings, progress: ProgressCallback = ignore_progress) -> Export:
    """Write the network of `bundle`, read the file again and compare it with torch in float32.

    Files are written to a temporary folder and moved to their place, the record last, once they agree.

    Raises:
        RequestError: a library is missing, int8 is requested for another format or without radiographs, or `images`
            is given without int8.
        CxrError: the written file disagrees with torch, or cannot be written; no file is left.
    """
    kind, int8 = settings.kind, settings.precision is Precision.INT8
    if settings.precision not in ALLOWED:
        raise RequestError(f"--precision {settings.precision} cannot be exported", "Use fp32 or int8.")
    if int8 and kind is not ExportFormat.OPENVINO:
        raise RequestError(f"--precision int8 works with openvino, not with {kind}", "Use --format openvino.")
    if int8 and settings.images is None:
        raise RequestError(
            "--precision int8 needs radiographs for calibration", "Give a folder of the training set with --images."
        )
    if not int8 and settings.images is not None:
        raise RequestError("--images is only for --precision int8", "Add --precision int8, or leave out --images.")
    refuse_without_library(kind, writing=True, int8=int8)
    network, header = bundle.network, bundle.header
    images = _calibration_images(settings, header, progress) if int8 else None
    folder = settings.out or bundle.exports
    graph = ExportGraph(network).eval()
    pixels = check_images(header.image_preprocessing)
    with torch.inference_mode():
        expected = torch.sigmoid(network(torch.from_numpy(pixels))).numpy()
    with _replacing_folder(folder) as partial:
        path = partial / export_name(kind, settings.precision)
        progress(Progress(f"writing {path.name}", 0, 1))
        _write(graph, kind, path, header.image_preprocessing.image_size, images)
        progress(Progress(f"writing {path.name}", 1, 1))
        difference = _largest_difference(path, kind, settings.precision, pixels, expected)
        allowed = ALLOWED[settings.precision]
        if not difference <= allowed:  # NaN must not pass
            raise CxrError(
                f"{path.name} disagrees with torch by {difference:.2g} in probability; {allowed:g} is allowed",
                "No file was kept. " + ("Use other radiographs with --images." if int8 else "Report it as a bug."),
            )
        record = ExportRecord(
            format=kind,
            precision=settings.precision,
            files={file.name: sha256_of_file(file) for file in sorted(partial.iterdir(), key=lambda f: f != path)},
            weights_sha256=header.weights_sha256,
            findings=header.findings,
            thresholds=header.thresholds,
            calibration=header.scalings,
            image_size=header.image_preprocessing.image_size,
            preprocessing=header.preprocessing,
            input=Pixels(shape=("batch", 1, *pixels.shape[2:])),
            check=Check(largest_difference=difference, allowed=allowed, images=len(pixels)),
            int8=None if images is None else CalibratedOn(folder=str(settings.images), images=len(images)),
            versions=current_versions() | library_versions(kind, int8),
            created=now(),
            intended_use=header.intended_use,
        )
        write_json(record_path(path), record.model_dump(mode="json"))
    return Export(folder / path.name, record)


@contextlib.contextmanager
def _replacing_folder(folder: Path) -> Iterator[Path]:
    """Give a temporary folder; if the block succeeds, its files are moved into `folder`, the record last."""
    partial = folder / f".{secrets.token_hex(4)}.partial"
    sweep_partials(folder)
    try:
        try:
            with locked_folder(partial):
                yield partial
                for file in sorted(partial.iterdir(), key=lambda file: file.suffix == ".json"):
                    with file.open("rb+") as opened:
                        os.fsync(opened.fileno())
                    file.replace(folder / file.name)
                sync_folder(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            with contextlib.suppress(OSError):
                folder.rmdir()  # if it is empty, it was created here
    except OSError as error:
        raise CxrError(
            f"cannot write in {folder}: {error.strerror or error}", "Check permissions and free space."
        ) from error


def _calibration_images(
    settings: ExportSettings, header: BundleHeader, progress: ProgressCallback
) -> NDArray[np.uint8]:
    """Return radiographs for int8, [N, 1, S, S] uint8, evenly spaced over the folder's sorted list."""
    assert settings.images is not None
    if not settings.images.is_dir():
        raise RequestError(f"--images {settings.images} is not a folder", "Give a folder of radiographs.")
    paths = list_images([settings.images], recursive=True)
    if header.views == "frontal":  # leave out lateral ones by CheXpert's names
        paths = [path for path in paths if not path.stem.endswith("_lateral")]
    chosen = paths
    if len(paths) > MOST_IMAGES:
        chosen = [paths[place] for place in np.linspace(0, len(paths) - 1, MOST_IMAGES).astype(int)]
    good: list[NDArray[np.uint8]] = []
    phase = f"reading {settings.images}"
    for batch in radiograph_batches(
        chosen, Reading(header.image_preprocessing, 16, settings.workers, limits=settings.limits)
    ):
        for path, result in batch:
            if isinstance(result, Radiograph):
                good.append(result.pixels)
            else:
                log.warning("%s is not used for calibration: %s", path, result)
        progress(Progress(phase, len(good), len(chosen)))
    if len(good) < FEWEST_IMAGES:
        raise RequestError(
            f"--images {settings.images} has {len(good)} readable radiographs; int8 needs at least {FEWEST_IMAGES}",
            "Give a folder of the training set.",
        )
    return np.stack(good)[:, None]


def _write(graph: ExportGraph, kind: ExportFormat, path: Path, size: int, images: NDArray[np.uint8] | None) -> None:
    # Two images, because torch.export treats a batch size of 1 as a constant.
    example = torch.zeros(2, 1, size, size, dtype=torch.uint8)
    with _quiet():
        if kind is ExportFormat.OPENVINO:
            _write_openvino(graph, example, path, images)
        else:
            program = torch.export.export(
                graph, (example,), dynamic_shapes={"pixels": {0: torch.export.Dim("batch", min=1)}}
            )
            if kind is ExportFormat.TORCH_EXPORT:
                torch.export.save(program, path)
            else:
                _write_onnx(program, path)


def _write_onnx(program: torch.export.ExportedProgram, path: Path) -> None:
    exported = torch.onnx.export(
        program, (), dynamo=True, input_names=["pixels"], output_names=["logits", "probabilities"], verbose=False
    )
    assert exported is not None
    for node in exported.model.graph:  # the exporter stores paths of this machine's source files
        node.metadata_props.clear()
    exported.save(path, external_data=False)


def _write_openvino(graph: ExportGraph, example: Tensor, path: Path, images: NDArray[np.uint8] | None) -> None:
    with without_telemetry():
        import openvino

        # Tracing here takes half the time of tracing in convert_model.
        traced = torch.jit.trace(graph, (example,), check_trace=False, strict=False)  # type: ignore[no-untyped-call]
        shape = openvino.PartialShape([-1, *example.shape[1:]])
        model = openvino.convert_model(traced, input=[("pixels", shape, openvino.Type.u8)])
        if images is not None:
            import nncf

            ones = [image[None] for image in images]
            model = nncf.quantize(
                model,
                nncf.Dataset(ones),
                preset=nncf.QuantizationPreset.MIXED,
                subset_size=len(ones),
            )
    openvino.save_model(model, path, compress_to_fp16=False)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress output and warnings of the exporters."""
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        names = ("nncf", "torch.onnx", "onnxscript", "onnx_ir", "torch.export", "torch.utils.cpp_extension")
        levels = {name: logging.getLogger(name).level for name in names}
        try:
            for name in names:
                logging.getLogger(name).setLevel(logging.ERROR)
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)


def _largest_difference(
    path: Path, kind: ExportFormat, precision: Precision, pixels: NDArray[np.uint8], expected: NDArray[np.float32]
) -> float:
    """Return the largest difference in probability: of all images in one batch, and of the first image alone."""
    run = _load_export(path, kind, precision)
    pairs: Sequence[tuple[NDArray[np.float32], NDArray[np.float32]]] = [
        (run(pixels), expected),
        (run(pixels[:1]), expected[:1]),
    ]
    return max(float(np.abs(ours - theirs).max()) for ours, theirs in pairs)


def _load_export(path: Path, kind: ExportFormat, precision: Precision) -> Any:
    """Return a function from pixels [B, 1, S, S] uint8 to probabilities [B, 5] that runs the exported file."""
    if kind is ExportFormat.TORCH_EXPORT:
        with _quiet():
            program = torch.export.load(path).module()

        def run(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
            with torch.inference_mode():
                probabilities: NDArray[np.float32] = program(torch.from_numpy(pixels))["probabilities"].numpy()
            return probabilities

        return run
    engine = OnnxEngine(path) if kind is ExportFormat.ONNX else OpenVinoEngine(path, precision)
    return lambda pixels: sigmoid(engine.logits(pixels))


@contextlib.contextmanager
def with_export(bundle: Bundle, settings: RuntimeSettings) -> Iterator[Bundle]:
    """Give the bundle with the export that the backend of `settings` needs; a float32 export is written if missing.

    If the bundle's folder is not writable, the export goes to a temporary folder that is removed after the block.

    Raises:
        RequestError: the backend does not support the settings.
        CxrError: the export disagrees with torch.
    """
    if settings.backend not in FORMAT_OF:
        yield bundle
        return
    check_supported(settings.backend, settings.precision, settings.device)
    found = export_for(bundle, settings.backend, settings.precision)
    if isinstance(found, Export) or settings.precision is Precision.INT8:  # `open_engine` reports a missing int8
        yield bundle
        return
    log.info("%s; exporting it now", found)
    options = ExportSettings(FORMAT_OF[settings.backend])
    with tempfile.TemporaryDirectory(prefix="cxr-export-") as temporary:
        try:
            export_model(bundle, options)
        except CxrError as error:
            if not isinstance(error.__cause__, OSError):
                raise
            log.info("%s; a temporary export is used for this run", error.message)
            export_model(bundle, replace(options, out=Path(temporary)))
            bundle = replace(bundle, exports=Path(temporary))
        yield bundle
