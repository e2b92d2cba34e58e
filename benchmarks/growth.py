"""Measure how time grows with images, studies, sheet rows and the size of a data set; print the figures and plot them.

python benchmarks/growth.py PLOT.png [PART ...]

The parts are images, studies, rows and commands, which are whole ones on data sets of up to 191,000 rows; all if none
is named. Figures are kept in PLOT.json, from which a plot takes the parts that are not measured again.
"""

import json
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


def seconds(work: Callable[[], object], calls: int = 2) -> float:
    """Return the shortest time of the calls, because the first may still import or load something."""
    times = []
    for _ in range(calls):
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
    list(classifier.predict_many(paths[: min(IMAGES)]))
    return [seconds(lambda: list(classifier.predict_many(paths[:count])), 1) for count in IMAGES]  # noqa: B023


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


TITLES = {
    "images": (f"images predicted ({IMAGE_SIZE} px)", IMAGES),
    "studies": (f"studies evaluated ({DRAWS:,} draws)", STUDIES),
    "rows": ("sheet rows read", ROWS),
    **{step: (title, DATA) for step, title in COMMANDS.items()},
}
PARTS: dict[str, Callable[[Path], dict[str, list[float]]]] = {
    "images": lambda folder: {"images": image_costs(folder)},
    "studies": lambda _: {"studies": study_costs()},
    "rows": lambda folder: {"rows": row_costs(folder)},
    "commands": command_costs,
}


def draw(plot: Path, costs: dict[str, list[float]]) -> None:
    """Plot all parts on logarithmic axes, where slope 1 is linear growth."""
    figure, axes = plt.subplots(2, 3, figsize=(10, 6.2), layout="constrained")
    for one, (part, (what, sizes)) in zip(axes.flat, TITLES.items(), strict=True):
        one.loglog(sizes, costs[part], "o-", color="#0f766e")
        one.loglog(sizes, np.array(sizes) / sizes[-1] * costs[part][-1], ":", color="#a1a1aa", label="linear")
        one.set(title=what, xlabel="size", ylabel="processor seconds" if part in COMMANDS else "seconds")
        one.legend(frameon=False)
        one.spines[["top", "right"]].set_visible(False)
    figure.savefig(plot, dpi=110)


def main() -> None:
    """Measure the parts, print and keep each as soon as it is known, and plot them once there are all."""
    plot = Path(sys.argv[1])
    kept = plot.with_suffix(".json")
    costs: dict[str, list[float]] = json.loads(kept.read_text()) if kept.exists() else {}
    for part in sys.argv[2:] or PARTS:
        with tempfile.TemporaryDirectory() as name:
            measured = PARTS[part](Path(name))
            costs |= {which: [round(cost, 3) for cost in found] for which, found in measured.items()}
            kept.write_text(json.dumps(costs, indent=1) + "\n")
        for which in measured:
            what, sizes = TITLES[which]
            shown = ", ".join(f"{size:,}: {cost:.2f} s" for size, cost in zip(sizes, costs[which], strict=True))
            times = costs[which][-1] / costs[which][-2]
            print(f"{what}: {shown}\n  ten times the last size but one takes {times:.1f} times as long", flush=True)
    if costs.keys() == TITLES.keys():
        draw(plot, costs)


if __name__ == "__main__":
    main()
