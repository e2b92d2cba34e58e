"""Each sheet and the bundle are opened once a command, however many parts of it ask for them."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from tests_support import change_header

COUNTING = """
import atexit, json, os, sys

opened = []


def note(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, bytes)):
        path, mode, flags = arguments
        writes = flags & (os.O_WRONLY | os.O_RDWR) if mode is None else set(mode) & set("wax+")
        if not writes:
            opened.append(os.path.abspath(os.fsdecode(path)))


def write():
    with open(os.environ["OPENED"], "w") as file:
        json.dump(opened, file)


sys.addaudithook(note)
atexit.register(write)
from cxrtool.cli.app import main

main(sys.argv[1:])
"""

COMMANDS = {
    "train": "train --data DATA --out new --init none --image-size 32 --epochs 3 --batch-size 16 --lr 0.001",
    "eval": "eval --data DATA --model RUN",
    "eval --by": "eval --data DATA --model RUN --by sex,Frontal/Lateral,Age",
    "eval of the newest run": "eval --data DATA",
    "tune": "tune --data DATA --model RUN",
    "tune from a table": "tune --predictions RUN/tune_valid/predictions.csv --model RUN",
    "calibrate": "calibrate --data DATA --model RUN",
    "errors": "errors --data DATA --model RUN --top 1",
    "localize": "localize --data DATA --model RUN --methods grad-cam,layer-cam --limit 6",
    "compare": "compare RUN other --data DATA",
    "report": "report RUN --data DATA --top 1",
    "predict": "predict DATA/test --recursive --model RUN --json",
    "explain": "explain DATA/test --recursive --model RUN --out maps",
    "info": "info RUN",
    "check-data": "check-data DATA --samples 4",
    "cache": "cache DATA --image-size 32 --split train --split valid",
}
SHEETS = {
    "train": {"train.csv", "valid.csv", "test.csv"},
    "tune from a table": set(),
    "predict": set(),
    "explain": set(),
    "info": set(),
    "localize": {"valid.csv", "test.csv"},
    "cache": {"train.csv", "valid.csv"},
}
"""Those that a command opens, where it is not all three."""


def opens(arguments: list[str], folder: Path) -> Counter[Path]:
    """How often a command opens each file to read it."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CXR_")}
    record = folder / "opened.json"
    done = subprocess.run(
        [sys.executable, "-c", COUNTING, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        env={**clean, "NO_COLOR": "1", "OMP_NUM_THREADS": "1", "OPENED": str(record)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Counter(map(Path, json.loads(record.read_text())))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_sheet_and_a_bundle_are_opened_once(
    command: str, few: Path, run: Path, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "only").symlink_to(run)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "model.safetensors").hardlink_to(run / "model.safetensors")
    text = COMMANDS[command].replace("DATA", str(few)).replace("RUN", str(run))
    found = opens(text.split(), tmp_path)
    sheets = {path.name: count for path, count in found.items() if path.parent == few and path.suffix == ".csv"}
    bundles = {str(path.relative_to(tmp_path)): count for path, count in found.items() if path.suffix == ".safetensors"}
    record_property("opens", sheets | bundles)
    sys.stdout.write(f"{command}: {sheets | bundles}\n")
    assert sheets == dict.fromkeys(SHEETS.get(command, {"train.csv", "valid.csv", "test.csv"}), 1)
    models = {"train": [], "check-data": [], "cache": [], "compare": ["run", "other"]}.get(
        command, ["runs/only" if "newest" in command else "run"]
    )
    assert bundles == {f"{model}/model.safetensors": 1 for model in models}


def test_one_sheet_of_all_splits_and_a_file_of_labels_are_opened_once(few: Path, run: Path, tmp_path: Path) -> None:
    parts = [pd.read_csv(few / f"{split}.csv").assign(split=split) for split in ("train", "valid", "test")]
    rows = pd.concat(parts)
    rows["Path"] = rows["Path"].str.removeprefix(f"{few.name}/")
    rows.to_csv(tmp_path / "all.csv", index=False)
    rows.drop(columns="split").to_csv(tmp_path / "labels.csv", index=False)
    given = ["--data", few, "--sheet", "all.csv", "--labels", "labels.csv", "--model", run, "--draws", 20]
    found = opens(["eval", *map(str, given)], tmp_path)
    assert [found[tmp_path / name] for name in ("all.csv", "labels.csv")] == [1, 1]


def test_of_several_runs_only_the_newest_is_read_further_than_its_header(run: Path, tmp_path: Path) -> None:
    """The hook sees what is opened twice, too; otherwise the tests above would pass whatever happened."""
    runs = [tmp_path / "runs" / name for name in ("older", "newer")]
    for folder, created in zip(runs, ("2026-01-01T00:00:00", "2026-02-01T00:00:00"), strict=True):
        folder.mkdir(parents=True)
        shutil.copy(run / "model.safetensors", folder)
        change_header(folder / "model.safetensors", created=created)
    found = opens(["info"], tmp_path)
    assert [found[folder / "model.safetensors"] for folder in runs] == [1, 2]
