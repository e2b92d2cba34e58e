"""Speed and memory on this machine, each compared with a plain PyTorch program run alternately with it."""

import json
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import mean

import numpy as np
import torch

from cxrtool.benchmarks.limit import layer_costs, machine_rate
from cxrtool.benchmarks.plain import plain_manifest, plain_network, plain_predict, plain_training_rate
from cxrtool.benchmarks.rows import Benchmark, Row
from cxrtool.choices import Backend, Blank, ExportFormat, Precision, Views
from cxrtool.data.images import list_images
from cxrtool.data.labels import encode_labels
from cxrtool.data.manifest import load_manifest
from cxrtool.data.preprocessing import Preprocessing
from cxrtool.engines.export import ExportSettings, export_model
from cxrtool.engines.export_record import installed
from cxrtool.engines.precision import bf16_is_faster
from cxrtool.engines.runtimes import has_bf16
from cxrtool.errors import RequestError
from cxrtool.files import write_csv
from cxrtool.findings import EVALUATION_POLICY, FINDINGS
from cxrtool.model.bundle import open_bundle, read_header, save_bundle
from cxrtool.model.densenet import build_network
from cxrtool.model.header import BundleHeader, current_versions, now
from cxrtool.phantoms.dataset import COLUMNS, write_phantom
from cxrtool.predict.classifier import Classifier
from cxrtool.progress import Progress, ProgressCallback, ignore_progress
from cxrtool.resolved_settings import load_settings
from cxrtool.settings import RuntimeSettings
from cxrtool.sheet_options import SPLITS
from cxrtool.training.loop import train

SHEET_ROWS = 223_414
"""Number of rows of CheXpert's train.csv."""
PARTS = ("predict", "train", "cold", "help", "manifest", "memory")
_PATIENTS = 60
_PLAIN_IMAGES = 12
_TYPES = {Precision.FP32: torch.float32, Precision.BF16: torch.bfloat16}
"""Types whose matrix products bound a network's rate; int8 has no product of its own in torch."""


@dataclass(frozen=True)
class BenchmarkSettings:
    """What is measured, and how often.

    Attributes:
        parts: some of `PARTS`.
        repeats: repetitions of each measurement.
        image_size: width and height in pixels.
        batch_size: images per training step.
        model: a bundle. If None, an untrained network is used, which takes the same time.
        memory_images: images in the larger of the two folders whose memory use is compared.
    """

    parts: tuple[str, ...] = PARTS
    repeats: int = 5
    image_size: int = 320
    batch_size: int = 16
    model: Path | None = None
    memory_images: int = 10_000


@dataclass(frozen=True)
class _Scene:
    """Inputs that the measurements share: drawn radiographs and a bundle."""

    settings: BenchmarkSettings
    data: Path
    images: tuple[Path, ...]
    model: Path
    progress: ProgressCallback

    def row(
        self,
        name: str,
        unit: str,
        ours: Callable[[], float],
        plain: Callable[[], float],
        against: str = "plain PyTorch",
    ) -> Row:
        """Run both alternately, after one turn of each that is not counted."""
        pairs = []
        for turn in range(self.settings.repeats + 1):
            self.progress(Progress(name, turn, self.settings.repeats + 1))
            pairs.append((ours(), plain()))
        self.progress(Progress(name, self.settings.repeats + 1, self.settings.repeats + 1))
        return Row(name, unit, tuple(one for one, _ in pairs[1:]), tuple(other for _, other in pairs[1:]), against)


def run_benchmark(settings: BenchmarkSettings, progress: ProgressCallback = ignore_progress) -> Benchmark:
    """Measure the requested parts, which takes minutes on two cores.

    Raises:
        RequestError: a part is unknown.
    """
    unknown = sorted(set(settings.parts) - set(PARTS))
    if unknown:
        raise RequestError(f"benchmark part {unknown[0]!r} is unknown", f"The parts are {', '.join(PARTS)}.")
    measures: dict[str, Callable[[_Scene], Iterator[Row]]] = {
        "predict": _predict_rows,
        "train": _train_rows,
        "cold": _cold_rows,
        "help": _help_rows,
        "manifest": _manifest_rows,
        "memory": _memory_rows,
    }
    with tempfile.TemporaryDirectory(prefix="cxr-bench-") as folder:
        scene = _prepare(Path(folder), settings, progress)
        rows = [row for part in PARTS if part in settings.parts for row in measures[part](scene)]
    return Benchmark(tuple(rows), settings.image_size, _machine())


def _machine() -> dict[str, object]:
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
        "bf16_pays": bf16_is_faster(torch.device("cuda" if gpu else "cpu")),
        "python": platform.python_version(),
        "versions": current_versions(),
        "measured": now(),
    }


def _prepare(folder: Path, settings: BenchmarkSettings, progress: ProgressCallback) -> _Scene:
    data = folder / "phantoms"
    drawn = Progress("drawing", 0, _PATIENTS)
    write_phantom(data, _PATIENTS, settings.image_size, 0, lambda done, _: progress(replace(drawn, done=done)))
    model = settings.model or untrained_bundle(folder / "model.safetensors", settings.image_size)
    images = list_images([data / split for split in SPLITS], recursive=True)
    return _Scene(settings, data, tuple(path for path in images if "frontal" in path.name), model, progress)


def untrained_bundle(path: Path, image_size: int) -> Path:
    """Write a bundle with random weights, for timing only, and return its path."""
    preprocessing = Preprocessing(image_size)
    header = BundleHeader(
        findings=FINDINGS,
        preprocessing=preprocessing.to_dict(),
        policy="u-ignore",
        blank=Blank.NEGATIVE,
        views=Views.FRONTAL.value,
        training={},
        data={},
        pos_weight=None,
        metrics={},
        versions=current_versions(),
        run="benchmark",
        created=now(),
    )
    save_bundle(path, build_network(preprocessing, "none", 0).state_dict(), header)
    return path


def _predict_rows(scene: _Scene) -> Iterator[Row]:
    """Time a folder from the second batch on, so that start-up is not counted, also as a share of `MachineRate`."""
    network = open_bundle(scene.model).network
    size = _image_size(scene.model)
    costs = layer_costs(network, RuntimeSettings().batch_size, size)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    plain = plain_network(network).to(device)

    def plain_rate() -> float:
        began = time.perf_counter()
        plain_predict(plain, scene.images[:_PLAIN_IMAGES], size, device)
        return _PLAIN_IMAGES / (time.perf_counter() - began)

    runtimes = [RuntimeSettings(backend=Backend.TORCH, precision=Precision.FP32)]
    if bf16_is_faster(torch.device(device)):
        runtimes.append(RuntimeSettings(backend=Backend.TORCH, precision=Precision.BF16))
    runtimes += _exported(scene)
    for runtime in runtimes:
        classifier = Classifier.load(_exported_bundle(scene), settings=runtime)
        name = f"predict a folder, {classifier.engine.how}"
        row = scene.row(name, "images/s", partial(_folder_rate, classifier, scene), plain_rate)
        yield row
        dtype = _TYPES.get(Precision(classifier.engine.how.precision))
        if dtype is not None:
            rates = [machine_rate(dtype, torch.device(device)) for _ in row.ours]
            limits = tuple(rate.images_per_second(costs, runtime.batch_size) for rate in rates)
            yield replace(row, name=f"{name}, as a share", plain=limits, against="the machine's limit")


def _exported_bundle(scene: _Scene) -> Path:
    """Copy the bundle into the temporary folder, so that no export is left beside the user's bundle."""
    copy = scene.data.parent / "exported" / "model.safetensors"
    if not copy.exists():
        copy.parent.mkdir()
        shutil.copy(scene.model, copy)
    return copy


def _exported(scene: _Scene) -> list[RuntimeSettings]:
    """Export for every installed backend and return how to run each; int8 is calibrated on the drawn radiographs."""
    bundle = open_bundle(_exported_bundle(scene))
    formats = [(ExportFormat.ONNX, Precision.FP32), (ExportFormat.OPENVINO, Precision.FP32)]
    if installed(ExportFormat.OPENVINO, int8=True):
        formats.append((ExportFormat.OPENVINO, Precision.INT8))
    settings = []
    for kind, precision in formats:
        if installed(kind):
            images = scene.data if precision is Precision.INT8 else None
            export_model(bundle, ExportSettings(kind, precision, images), scene.progress)
            backend = Backend(kind.value)
            settings.append(RuntimeSettings(backend=backend, precision=precision))
            if precision is Precision.FP32 and has_bf16(backend):
                settings.append(RuntimeSettings(backend=backend, precision=Precision.BF16))
    return settings


def _image_size(model: Path) -> int:
    return read_header(model).image_preprocessing.image_size


def _folder_rate(classifier: Classifier, scene: _Scene) -> float:
    predictions = classifier.predict_many(scene.images)
    first = classifier.reading.batch_size
    for _ in islice(predictions, first):
        pass
    began = time.perf_counter()
    rest = sum(1 for _ in predictions)
    return rest / (time.perf_counter() - began)


_GPU_EPOCHS = 10


def _train_rows(scene: _Scene) -> Iterator[Row]:
    """Time training steps after the first ones, with the same images, batch and size on both sides.

    On a CPU they are timed from the first progress report on. A GPU ends an epoch before the second report, so there
    whole epochs are timed, without the first.
    """
    settings = scene.settings
    manifest = load_manifest(scene.data, "train")
    targets, _ = encode_labels(manifest.raw_labels, EVALUATION_POLICY.of(manifest.findings))
    paths = [manifest.file(row) for row in range(len(manifest))]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    epochs = 1 + _GPU_EPOCHS if device == "cuda" else 1
    given: dict[str, object] = {
        "data.root": scene.data,
        "train.init": "none",
        "train.epochs": epochs,
        "train.image_size": settings.image_size,
        "train.batch_size": settings.batch_size,
    }

    def ours() -> float:
        marks: list[tuple[float, int]] = []

        def note(progress: Progress) -> None:
            if progress.phase == "epoch 1/1":
                marks.append((time.perf_counter(), progress.done))

        with tempfile.TemporaryDirectory() as out:
            result = train(load_settings(given, environ={}), out=Path(out) / "run", progress=note)
        if epochs > 1:
            return mean(epoch.images_per_second for epoch in result.history[1:])
        (began, first), (ended, last) = marks[0], marks[-1]
        return (last - first) / (ended - began)

    def plain() -> float:
        workers = 8 if device == "cuda" else 2
        return plain_training_rate(paths, targets, settings.image_size, settings.batch_size, workers, device, epochs)

    yield scene.row("train", "images/s", ours, plain)


def _cold_rows(scene: _Scene) -> Iterator[Row]:
    """Time a new process that predicts one image."""
    size = _image_size(scene.model)
    plain = (
        "import torch, torchvision\n"
        "network = torchvision.models.densenet121(weights=None, num_classes=5).eval()\n"
        f"with torch.no_grad(): network(torch.zeros(1, 3, {size}, {size}))"
    )
    ours = ["-m", "cxrtool", "predict", str(scene.images[0]), "--model", str(scene.model)]
    against = "import torch, torchvision and one forward pass"
    yield _process_row(scene, "predict one image, cold", ours, ["-c", plain], against)


def _help_rows(scene: _Scene) -> Iterator[Row]:
    yield _process_row(scene, "cxr --help", ["-m", "cxrtool", "--help"], ["-c", "import torch"], "import torch")


def _process_row(scene: _Scene, name: str, ours: list[str], plain: list[str], against: str) -> Row:
    return scene.row(name, "s", partial(_process_seconds, ours), partial(_process_seconds, plain), against)


def _process_seconds(arguments: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return time.perf_counter() - began


def write_sheet(path: Path, rows: int) -> None:
    """Write a train.csv like CheXpert's: two images per study, 14.5 % of them lateral, labels blank, 1, 0 and -1."""
    rng = np.random.default_rng(0)
    values = np.array(["", 1.0, 0.0, -1.0], dtype=object)
    labels = values[rng.choice(4, (rows, len(COLUMNS) - 5), p=[0.6, 0.25, 0.1, 0.05])]
    lateral = rng.random(rows) < 0.145
    lines = []
    for row in range(rows):
        view = "lateral" if lateral[row] else "frontal"
        place = f"CheXpert-v1.0-small/train/patient{row // 4 + 1:05d}/study{row // 2 % 2 + 1}"
        seen = [f"{place}/view{row % 2 + 1}_{view}.jpg", "Female", 60, view.capitalize(), "" if lateral[row] else "AP"]
        lines.append([*seen, *labels[row]])
    write_csv(path, COLUMNS, lines)


def _manifest_rows(scene: _Scene) -> Iterator[Row]:
    folder = scene.data.parent / "sheet"
    (folder / "train").mkdir(parents=True)
    write_sheet(folder / "train.csv", SHEET_ROWS)

    def ours() -> float:
        began = time.perf_counter()
        load_manifest(folder, "train")
        return time.perf_counter() - began

    def plain() -> float:
        began = time.perf_counter()
        plain_manifest(folder / "train.csv")
        return time.perf_counter() - began

    yield scene.row(f"manifest of {SHEET_ROWS:,} rows", "s", ours, plain, against="iterrows")


_MEMORY_SCRIPT = """
import json, resource, sys
from pathlib import Path
from cxrtool import Classifier

def peak():  # on Linux a child inherits the figure of getrusage from the process that started it
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

classifier = Classifier.load(sys.argv[1])
count = sum(1 for _ in classifier.predict_many(sorted(Path(sys.argv[2]).iterdir())[: int(sys.argv[3])]))
print(json.dumps([count, peak() / 1024]))
"""


def _memory_rows(scene: _Scene) -> Iterator[Row]:
    """Compare the peak memory of a large folder with that of 500 images, at 64 px so that it takes only a minute."""
    small = untrained_bundle(scene.data.parent / "small.safetensors", 64)
    folder = scene.data.parent / "many"
    folder.mkdir()
    count = scene.settings.memory_images
    for number in range(count):
        (folder / f"{number:06d}.jpg").hardlink_to(scene.images[number % len(scene.images)])

    def peak(images: int) -> float:
        command = [sys.executable, "-c", _MEMORY_SCRIPT, str(small), str(folder), str(images)]
        done, mebibytes = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        assert done == images
        return float(mebibytes)

    name = f"memory of {count:,} images"
    scene.progress(Progress(name, 0, 2))
    few = peak(500)
    scene.progress(Progress(name, 1, 2))
    yield Row(name, "MiB", (peak(count),), (few,), against="500 images")
