"""How busy a GPU is while it trains, beside a plain PyTorch program, and what predicting JPEGs is limited by.

    python benchmarks/gpu.py [BATCH ...]

Draws radiographs of 320 px, links them to a larger data set, and prints one line per measurement.
"""

import csv
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from cxrtool.benchmarks.measure import untrained_bundle
from cxrtool.benchmarks.plain import plain_training_rate
from cxrtool.choices import Precision
from cxrtool.data.manifest import load_manifest
from cxrtool.data.preprocessing import Preprocessing
from cxrtool.data.radiograph import read_pixels
from cxrtool.phantoms.dataset import write_phantom
from cxrtool.predict.classifier import Classifier
from cxrtool.progress import Progress
from cxrtool.resolved_settings import load_settings
from cxrtool.settings import RuntimeSettings
from cxrtool.training.loop import train

PATIENTS, COPIES, SIDE = 400, 12, 320
CHEXPERT = 191_027
"""Frontal images of CheXpert's train.csv."""


def make_data(folder: Path) -> Path:
    """Draw phantoms and link the patients of train `COPIES` times under other numbers."""
    data = folder / "phantoms"
    write_phantom(data, PATIENTS, SIDE, 0)
    with (data / "train.csv").open() as file:
        header, *rows = csv.reader(file)
    more = []
    for copy in range(1, COPIES):
        for row in rows:
            place = Path(row[0])
            linked = Path(*[part.replace("patient", f"patient{copy}") for part in place.parts])
            base = data.parent if place.parts[0] == data.name else data
            (base / linked).parent.mkdir(parents=True, exist_ok=True)
            (base / linked).hardlink_to(base / place)
            more.append([str(linked), *row[1:]])
    with (data / "train.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows, *more])
    return data


def training(data: Path, folder: Path, batch: int, record: bool) -> tuple[float, float]:
    """Return images per second of the second epoch, and the share of the third's end in which a kernel runs.

    The profiler slows the epoch that it watches down, so its rate does not count.
    """
    given: dict[str, object] = {
        "data.root": data,
        "data.cache": True,
        "data.cache_dir": folder / "cache",
        "train.init": "none",
        "train.epochs": 3,
        "train.image_size": SIDE,
        "train.batch_size": batch,
        "runtime.cuda_graphs": record,
    }
    profiler = profile(activities=[ProfilerActivity.CUDA], acc_events=True)
    state = {"on": False, "done": False}

    def note(progress: Progress) -> None:
        if progress.phase != "epoch 3/3" or progress.total is None or state["done"]:
            return
        if not state["on"] and progress.done > 0.7 * progress.total:
            state["on"] = True
            profiler.start()
        elif state["on"] and progress.done > 0.85 * progress.total:
            torch.cuda.synchronize()
            profiler.stop()
            state["done"] = True

    out = folder / f"run-{batch}-{record}"
    result = train(load_settings(given, environ={}), out, progress=note)
    return result.history[1].images_per_second, busy_share(profiler)


def busy_share(profiler: profile) -> float:
    """Return the share of the time from the first to the last kernel in which at least one ran."""
    spans = sorted((e.time_range.start, e.time_range.end) for e in profiler.events() if "CUDA" in str(e.device_type))
    busy, reached = 0.0, spans[0][0]
    for begin, end in spans:
        busy += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return busy / (reached - spans[0][0])


def folder_rate(model: Path, paths: list[Path], precision: Precision, batch: int) -> float:
    """Return images per second of predicting files, after the first four batches."""
    classifier = Classifier.load(model, settings=RuntimeSettings(precision=precision, batch_size=batch))
    predictions = classifier.predict_many(paths)
    first = sum(1 for _ in islice(predictions, 4 * batch))
    began = time.perf_counter()
    return sum(1 for _ in predictions) / (time.perf_counter() - began) if first else 0.0


def reading_rate(paths: list[Path], threads: int) -> float:
    """Return images per second of reading alone."""
    read = partial(read_pixels, preprocessing=Preprocessing(SIDE))
    with ThreadPoolExecutor(threads) as pool:
        began = time.perf_counter()
        for _ in pool.map(read, paths):
            pass
        return len(paths) / (time.perf_counter() - began)


def decoding_on_gpu(paths: list[Path]) -> tuple[float, int]:
    """Return images per second of nvJPEG, and the largest difference from Pillow in grey levels."""
    from PIL import Image
    from torchvision.io import ImageReadMode, decode_jpeg, read_file

    raw = [read_file(str(path)) for path in paths[:256]]
    decode_jpeg(raw[:8], mode=ImageReadMode.GRAY, device="cuda")
    torch.cuda.synchronize()
    began = time.perf_counter()
    decoded = decode_jpeg(raw, mode=ImageReadMode.GRAY, device="cuda")
    torch.cuda.synchronize()
    rate = len(raw) / (time.perf_counter() - began)
    ours = [np.asarray(Image.open(path).convert("L")).astype(int) for path in paths[:64]]
    return rate, max(int(np.abs(a.cpu().numpy()[0] - b).max()) for a, b in zip(decoded, ours, strict=False))


def main() -> None:
    batches = [int(text) for text in sys.argv[1:]] or [32, 64, 128]
    print(torch.cuda.get_device_name(), "torch", torch.__version__, flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = make_data(folder)
        manifest = load_manifest(data, "train")
        paths = [manifest.file(row) for row in range(len(manifest))]
        print(f"{len(paths)} images to train on", flush=True)
        for batch in batches:
            for record in (True, False):
                rate, busy = training(data, folder, batch, record)
                hours = f"an epoch of {CHEXPERT:,} images would take {CHEXPERT / rate / 60:.1f} min"
                print(
                    f"train, batch {batch}, recorded {record}: {rate:.0f} images/s, busy {busy:.3f}; {hours}",
                    flush=True,
                )
        targets = np.zeros((len(paths), 5), dtype=np.float32)
        for batch in batches:
            rate = plain_training_rate(paths[:2048], targets, SIDE, batch, 8, "cuda", 2)
            print(f"plain, batch {batch}, AMP, 8 workers: {rate:.0f} images/s", flush=True)
        model = untrained_bundle(folder / "model.safetensors", SIDE)
        for threads in (1, 8, 16):
            print(f"read JPEGs, {threads} threads: {reading_rate(paths[:2000], threads):.0f} images/s", flush=True)
        for precision in (Precision.FP32, Precision.BF16):
            for batch in (16, 64):
                rate = folder_rate(model, paths, precision, batch)
                print(f"predict JPEGs, {precision}, batch {batch}: {rate:.0f} images/s", flush=True)
        rate, difference = decoding_on_gpu(paths)
        print(f"nvJPEG: {rate:.0f} images/s, at most {difference} grey levels from Pillow", flush=True)


if __name__ == "__main__":
    main()
