"""Measure the commands on a data set of CheXpert's size: ``python benchmarks/real_size.py [STEP ...] [--rows 191000]``.

Makes a folder of 191,000 train, 1,000 valid and 20,000 test rows in CheXpert's layout, whose images are hard links to a
few hundred drawings of 64 px, and runs each command as a process of its own. Prints a table as Markdown: wall seconds,
processor seconds (user and system) and the most memory of each. A command that would go on for hours is stopped
after what is measured: its first row, or its first step of training. Needs Linux, 1 GB of disk and some minutes.
"""

import argparse
import csv
import os
import pty
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cxrtool.benchmarks.measure import untrained_bundle
from cxrtool.findings import FINDINGS
from cxrtool.phantoms.dataset import COLUMNS, write_phantom

TRAIN, VALID, TEST = 191_000, 1_000, 20_000
SIZE = 32
"""Width and height of the network's input in pixels, so that the network's own time does not hide the rest."""
STUDIES = 3
"""Studies per patient: CheXpert's train.csv has 187,641 of 64,540 patients."""
_DRAWN = 240
_LONGEST = 290.0
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cost:
    """What a process took until it ended, or until it was stopped.

    Attributes:
        wall: seconds since it was started.
        cpu: user and system seconds of the process and its threads.
        peak: largest resident set in MiB.
    """

    wall: float
    cpu: float
    peak: float


@dataclass(frozen=True)
class Place:
    """A folder for the data set and what the commands write."""

    folder: Path

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def flat(self) -> Path:
        return self.folder / "flat"

    @property
    def model(self) -> Path:
        return self.folder / "model.safetensors"

    @property
    def scores(self) -> Path:
        return self.folder / "scores.csv"


def make_data(place: Place, train: int = TRAIN, valid: int = VALID, test: int = TEST) -> None:
    """Write the data set, a flat folder of as many images as train has, a bundle, and scores of the test split."""
    drawn = place.folder / "drawn"
    write_phantom(drawn, _DRAWN, 64, 0, lambda *_: None)
    images = sorted(drawn.glob("*/*/*/*frontal.jpg"))
    rng, first = np.random.default_rng(0), 1
    for split, rows in (("train", train), ("valid", valid), ("test", test)):
        first = _write_split(place.data, split, rows, first, images, rng)
    place.flat.mkdir()
    for number in range(train):
        os.link(images[number % len(images)], place.flat / f"{number:06d}.jpg")
    untrained_bundle(place.model, SIZE)
    _write_scores(place, rng)


def _write_split(data: Path, split: str, rows: int, first: int, images: list[Path], rng: np.random.Generator) -> int:
    """Write a sheet and its images, of patients numbered from `first`; return the next patient's number."""
    shares = [0.45, 0.25, 0.2, 0.1] if split == "train" else [0.0, 0.3, 0.7, 0.0]
    values = np.array(["", "1.0", "0.0", "-1.0"], dtype=object)[rng.choice(4, (rows, len(COLUMNS) - 5), p=shares)]
    ages, men, supine = rng.integers(18, 91, rows), rng.random(rows) < 0.59, rng.random(rows) < 0.84
    data.mkdir(exist_ok=True)
    with (data / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
        sheet = csv.writer(file, lineterminator="\n")
        sheet.writerow(COLUMNS)
        for row in range(rows):
            patient, study = divmod(row, STUDIES)
            folder = f"{split}/patient{first + patient:05d}/study{study + 1}"
            os.makedirs(data / folder)
            os.link(images[row % len(images)], data / folder / "view1_frontal.jpg")
            one = patient % rows
            seen = ["Male" if men[one] else "Female", ages[one], "Frontal", "AP" if supine[row] else "PA"]
            sheet.writerow([f"CheXpert-v1.0-small/{folder}/view1_frontal.jpg", *seen, *values[row]])
    return first + rows // STUDIES + 1


def _write_scores(place: Place, rng: np.random.Generator) -> None:
    """Write a score in [0, 1] for each row of test and finding, higher on average where the label is 1."""
    with (place.data / "test.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    truth = np.array([[float(row[finding]) for finding in FINDINGS] for row in rows])
    scores = 1 / (1 + np.exp(-(rng.normal(size=truth.shape) + 1.5 * truth - 1)))
    with place.scores.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["Path", *FINDINGS])
        table.writerows(
            [row["Path"], *map(repr, map(float, row_scores))] for row, row_scores in zip(rows, scores, strict=True)
        )


def measure(place: Place, *arguments: object, until: bytes = b"") -> Cost:
    """Run ``cxr`` in a terminal of its own, until it ends or first shows `until`, and return what it took.

    Raises:
        RuntimeError: it failed, took too long, or ended without showing `until`.
    """
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "cxrtool", *map(str, arguments)]
    environment = os.environ | {"COLUMNS": "200", "TERM": "xterm"}
    began = time.perf_counter()
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, cwd=place.folder, env=environment
    )
    os.close(theirs)
    shown, cost, wanted = b"", Cost(0, 0, 0), not until
    try:
        while time.perf_counter() - began < _LONGEST:
            shown = (shown + _available(ours))[-20_000:]
            ended = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
            cost = Cost(time.perf_counter() - began, _cpu_seconds(process.pid), _peak(process.pid) or cost.peak)
            if (until and until in shown) or ended:
                wanted = wanted or until in shown
                break
        else:
            raise RuntimeError(f"{' '.join(command)} took more than {_LONGEST:g} s")
    finally:
        code = _end(process, ours)
    if not wanted or (not until and code not in (0, 1)):
        raise RuntimeError(f"{' '.join(command)} exited with {code}:\n{shown.decode(errors='replace')}")
    return cost


def _available(terminal: int) -> bytes:
    """Wait up to 20 ms for output, and return it."""
    if not select.select([terminal], [], [], 0.02)[0]:
        return b""
    try:
        return os.read(terminal, 65_536)
    except OSError:  # the process has closed it
        time.sleep(0.02)
        return b""


def _end(process: "subprocess.Popen[bytes]", terminal: int) -> int:
    """Stop the process, as with the first Ctrl-C, and read what it still writes."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    deadline = time.perf_counter() + 60
    while process.poll() is None:
        _available(terminal)
        if time.perf_counter() > deadline:
            process.kill()
    os.close(terminal)
    return process.wait()


def _cpu_seconds(process: int) -> float:
    """Return user and system seconds of a process and its threads; it may have ended, but not been waited for."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _peak(process: int) -> float:
    """Return the largest resident set in MiB; 0 if the process has ended.

    Not `resource.getrusage`, which counts what the parent held before the child was started.
    """
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), 0.0)


def _train(place: Place, *more: object) -> Cost:
    """Train until the first step of the first epoch is shown."""
    out = place.folder / f"run-{time.time_ns()}"
    fixed = ["--init", "none", "--image-size", SIZE, "--batch-size", 8, "--out", out]
    return measure(place, "train", "--data", place.data, *fixed, *more, until=b"epoch 1/")


def _scored(place: Place) -> list[object]:
    return ["--scores", place.scores, "--truth", place.data / "test.csv", "--key", "Path"]


def _report(place: Place) -> Cost:
    return measure(place, "report", *_scored(place), "--out", place.folder / "report.html")


STEPS: dict[str, tuple[str, Callable[[Place], Cost]]] = {
    "check": ("check-data", lambda place: measure(place, "check-data", place.data)),
    "train": ("train without a cache, to the first step", _train),
    "cache": (f"cache, built ({SIZE} px)", lambda place: measure(place, "cache", place.data, "--image-size", SIZE)),
    "warm": ("train with a warm cache, to the first step", lambda place: _train(place, "--cache")),
    "tree": (
        "predict, train's folders, to the first row",
        lambda place: measure(place, "predict", place.data / "train", "-r", "--model", place.model, until=b".jpg "),
    ),
    "flat": (
        "predict, one flat folder, to the first row",
        lambda place: measure(place, "predict", place.flat, "--model", place.model, until=b".jpg "),
    ),
    "test": (
        "predict, test's folders, to the end",
        lambda place: measure(
            place, "predict", place.data / "test", "-r", "--model", place.model, "--csv", place.folder / "rows.csv"
        ),
    ),
    "eval": (
        "eval of test from a table of scores",
        lambda place: measure(place, "eval", *_scored(place), "--out", place.folder / "eval"),
    ),
    "report": ("report of test from a table of scores", _report),
}


def measured(place: Place, steps: list[str]) -> Iterator[tuple[str, Cost]]:
    """Yield the title and cost of each step."""
    for step in steps:
        title, run = STEPS[step]
        yield title, run(place)


def main() -> None:
    """Make the data set, and print a row for each step as soon as it is measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("steps", nargs="*", metavar="STEP", help=f"Some of {', '.join(STEPS)}. [default: all]")
    parser.add_argument("--rows", type=int, default=TRAIN, help="Rows of train. [default: 191000]")
    parser.add_argument("--folder", type=Path, help="Keep the data set here, or use the one that is here.")
    given = parser.parse_args()
    unknown = sorted(set(given.steps) - set(STEPS))
    if unknown:
        parser.error(f"{unknown[0]} is no step")
    with tempfile.TemporaryDirectory() as name:
        place = Place((given.folder or Path(name)).resolve())
        if not place.scores.exists():
            place.folder.mkdir(parents=True, exist_ok=True)
            began = time.perf_counter()
            make_data(place, given.rows)
            print(f"data set of {given.rows:,} train rows made in {time.perf_counter() - began:.0f} s\n")
        print(f"load {os.getloadavg()[0]:.1f} of {os.cpu_count()} cores\n")
        print("| step | wall s | CPU s | peak MiB |\n|---|---|---|---|")
        for title, cost in measured(place, given.steps or list(STEPS)):
            print(f"| {title} | {cost.wall:.1f} | {cost.cpu:.1f} | {cost.peak:,.0f} |", flush=True)
        page = place.folder / "report.html"
        if page.exists():
            print(f"\nThe report has {page.stat().st_size / 1e6:.1f} MB.")


if __name__ == "__main__":
    main()
