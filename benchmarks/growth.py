"""Measure how time grows with images, studies, sheet rows and the size of a data set; print the figures and plot them.

python benchmarks/growth.py [PLOT.png]
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import real_size
from bootstrap import synthetic_table

from cxrtool.benchmarks.measure import untrained_bundle, write_sheet
from cxrtool.data.manifest import load_manifest
from cxrtool.evaluation.drawn_areas import bootstrap_areas
from cxrtool.evaluation.intervals import BootstrapSettings
from cxrtool.phantoms.dataset import write_phantom
from cxrtool.predict.classifier import Classifier

matplotlib.use("Agg")
import matplotlib.pyplot as plt

IMAGES, STUDIES, ROWS = (100, 1_000, 10_000), (200, 2_000, 20_000), (2_234, 22_341, 223_414)
DATA = (1_910, 19_100, 191_000)
COMMANDS = {
    "check": "check-data, rows",
    "train": "train to its first step, rows",
    "tree": "predict -r to its first row, files",
}
IMAGE_SIZE = 64  # at 320 px the network, whose cost per image is constant, would dominate
DRAWS = 1_000


def seconds(work: Callable[[], object]) -> float:
    """Return the shorter time of two calls, because the first may still import or load something."""
    times = []
    for _ in range(2):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def image_costs(folder: Path) -> list[float]:
    """Time the prediction of a folder at 64 px."""
    write_phantom(folder / "phantoms", 20, 320, 0, lambda *_: None)
    drawn = sorted((folder / "phantoms").glob("*/*/*/*frontal.jpg"))
    many = folder / "many"
    many.mkdir()
    for number in range(max(IMAGES)):
        (many / f"{number:06d}.jpg").hardlink_to(drawn[number % len(drawn)])
    classifier = Classifier.load(untrained_bundle(folder / "model.safetensors", IMAGE_SIZE))
    paths = sorted(many.iterdir())
    return [seconds(lambda: list(classifier.predict_many(paths[:count]))) for count in IMAGES]  # noqa: B023


def study_costs() -> list[float]:
    """Time every figure of every finding with its interval over 1,000 resamples of patients."""
    tables = [synthetic_table(studies) for studies in STUDIES]
    return [seconds(lambda: bootstrap_areas([one], BootstrapSettings(DRAWS))) for one in tables]  # noqa: B023


def row_costs(folder: Path) -> list[float]:
    """Time reading a sheet into a manifest."""
    costs = []
    for rows in ROWS:
        place = folder / str(rows)
        (place / "train").mkdir(parents=True)
        write_sheet(place / "train.csv", rows)
        costs.append(seconds(lambda: load_manifest(place, "train")))  # noqa: B023
    return costs


def command_costs(folder: Path) -> dict[str, list[float]]:
    """Return processor seconds of whole commands on data sets of each size; starting alone takes about two."""
    costs: dict[str, list[float]] = {step: [] for step in COMMANDS}
    for rows in DATA:
        place = real_size.Place(folder / str(rows))
        place.folder.mkdir()
        real_size.make_data(place, rows, 1_000, 1_000)
        for step, found in costs.items():
            found.append(real_size.STEPS[step][1](place).cpu)
    return costs


def main() -> None:
    """Measure everything and plot them on logarithmic axes, where slope 1 is linear growth."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        measured = [
            (f"images predicted ({IMAGE_SIZE} px)", IMAGES, image_costs(folder)),
            (f"studies evaluated ({DRAWS:,} draws)", STUDIES, study_costs()),
            ("sheet rows read", ROWS, row_costs(folder)),
        ]
        (folder / "data").mkdir()
        measured += [(COMMANDS[step], DATA, costs) for step, costs in command_costs(folder / "data").items()]
    figure, axes = plt.subplots(2, 3, figsize=(10, 6.2), layout="constrained")
    for number, (one, (what, sizes, costs)) in enumerate(zip(axes.flat, measured, strict=True)):
        slope = float(np.polyfit(np.log(sizes[1:]), np.log(costs[1:]), 1)[0])
        print(f"{what}: " + ", ".join(f"{size:,}: {cost:.2f} s" for size, cost in zip(sizes, costs, strict=True)))
        print(f"  ten times the last size but one takes {costs[-1] / costs[-2]:.1f} times as long (slope {slope:.2f})")
        one.loglog(sizes, costs, "o-", color="#0f766e")
        one.loglog(sizes, np.array(sizes) / sizes[-1] * costs[-1], ":", color="#a1a1aa", label="linear")
        one.set(title=what, xlabel="size", ylabel="seconds" if number < 3 else "processor seconds")
        one.legend(frameon=False)
        one.spines[["top", "right"]].set_visible(False)
    if len(sys.argv) > 1:
        figure.savefig(sys.argv[1], dpi=110)


if __name__ == "__main__":
    main()
