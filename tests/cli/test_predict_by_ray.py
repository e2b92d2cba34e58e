"""``cxr predict --ray``: the table of one process, whatever dies meanwhile."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from conftest import Call, Cxr, run_cxr
from tests_support import link_radiographs
from warm import until

ray = pytest.importorskip("ray")
STORE = 100 * 10**6
"""Bytes for objects; Ray's own choice is a third of the memory."""


def many_files(phantoms: Path, folder: Path, count: int, broken_every: int) -> Path:
    """Fill a folder with links to radiographs, some of which are no images."""
    for link in link_radiographs(phantoms, folder, count)[3::broken_every]:
        link.unlink()
        link.write_bytes(b"no image")
    return folder


def options(data: Path, model: Path, name: str) -> list[object]:
    return ["predict", data, "--model", model, "--threads", 1, "--csv", name]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two machines with one processor each, as far as Ray can tell."""
    from ray.cluster_utils import Cluster

    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": STORE})
    found.add_node(num_cpus=1, object_store_memory=STORE)
    yield found
    found.shutdown()


def has_parts(table: Path, count: int) -> Callable[[], bool]:
    """Return a condition: an unfinished table has at least `count` parts."""
    folder = table.with_name(f".{table.name}.parts")
    return lambda: len(list(folder.glob("*.json"))) >= count


def has_ended(driver: "subprocess.Popen[str]", or_: Callable[[], bool]) -> Callable[[], bool]:
    """Return a condition: the process has ended, or another condition holds."""
    return lambda: driver.poll() is not None or or_()


def actors(cluster: Any) -> list[int]:
    """Process ids of the actors on this cluster, whose parents were started with its address."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            if (folder / "cmdline").read_bytes().startswith(b"ray::BlockPredictor"):
                parent = re.search(r"^PPid:\s*(\d+)", (folder / "status").read_text(), re.MULTILINE)
                assert parent
                if cluster.address.encode() in Path("/proc", parent[1], "cmdline").read_bytes():
                    found.append(int(folder.name))
    return found


def test_a_cluster_on_this_machine_writes_the_same_table(
    cxr: Cxr, run_folder: Path, phantoms: Path, tmp_path: Path
) -> None:
    """Ten blocks, of which the last is short; relative names, from the folder of the command."""
    many_files(phantoms, tmp_path / "many", 600, 20)
    done = cxr(*options(Path("many"), run_folder, "one.csv"))
    assert done.returncode == 1, done.stderr
    done = cxr(*options(Path("many"), run_folder, "two.csv"), "--ray", "local", "--parquet", "rows")
    assert done.returncode == 1, done.stderr
    assert "600 images, 30 of them unreadable: two.csv (by torch in fp32)" in done.stdout
    assert (tmp_path / "two.csv").read_bytes() == (tmp_path / "one.csv").read_bytes()
    assert not list(tmp_path.glob(".*"))
    rows = pd.read_parquet(tmp_path / "rows")
    assert (len(rows), rows["Edema"].isna().sum()) == (600, 30)


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (["--ray", "127.0.0.1:1"], "no Ray cluster at 127.0.0.1:1 ("),
        (["--ray", "127.0.0.1"], "no Ray cluster at 127.0.0.1 (give its port too, as in HOST:6379)"),
        (["--ray", "--json"], "--json does not go with --ray"),
        (["--ray", "--shard", "1/2"], "--shard does not go with --ray"),
        (["--actors", "2"], "--actors needs --ray"),
        (["--parquet", "rows", "--shard", "1/2"], "--parquet does not go with --shard"),
    ],
)
def test_what_cannot_be_done_is_refused(
    call: Call, run_folder: Path, phantoms: Path, tmp_path: Path, more: list[str], reason: str
) -> None:
    done = call(*options(phantoms / "test", run_folder, "table.csv"), "-r", *more)
    assert done.code == 2
    assert done.stderr.splitlines()[-2].startswith(f"error: {reason}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", ["--ray", "--parquet"])
def test_a_table_is_needed(call: Call, option: str) -> None:
    done = call("predict", "image.jpg", option, "local")
    assert done.code == 2
    assert done.stderr.startswith(f"error: {option} needs --csv")


@pytest.mark.takes_minutes
def test_killed_workers_and_machines_cost_nothing_but_time(
    cluster: Any, run_folder: Path, phantoms: Path, tmp_path: Path
) -> None:
    """20,000 files, 1,000 of them broken; a worker is killed every few seconds, and a machine is lost and replaced."""
    many = many_files(phantoms, tmp_path / "many", 20_000, 20)
    done = run_cxr(*options(many, run_folder, "one.csv"), cwd=tmp_path)
    assert "20,000 images, 1,000 of them unreadable" in done.stdout
    lost = cluster.add_node(num_cpus=1, object_store_memory=STORE)
    arguments = [*options(many, run_folder, "two.csv"), "--ray", cluster.address]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "cxrtool", *map(str, arguments)]
    chance, killed, table = random.Random(1), 0, tmp_path / "two.csv"
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as driver:
        for count in range(1, 100, 4):
            until(has_ended(driver, or_=has_parts(table, count)), 300)
            if driver.poll() is not None:
                break
            if count == 9:
                cluster.remove_node(lost)
                cluster.add_node(num_cpus=1, object_store_memory=STORE)
            elif workers := actors(cluster):
                os.kill(chance.choice(workers), signal.SIGKILL)
                killed += 1
        output, errors = driver.communicate(timeout=300)
    assert driver.returncode == 1, errors
    assert killed >= 5
    assert "20,000 images, 1,000 of them unreadable" in output
    assert (tmp_path / "two.csv").read_bytes() == (tmp_path / "one.csv").read_bytes()
    shutil.rmtree(many)


@pytest.mark.takes_minutes
def test_a_driver_that_is_killed_goes_on(cluster: Any, run_folder: Path, phantoms: Path, tmp_path: Path) -> None:
    many = many_files(phantoms, tmp_path / "many", 3000, 20)
    done = run_cxr(*options(many, run_folder, "one.csv"), cwd=tmp_path)
    assert "3,000 images, 150 of them unreadable" in done.stdout
    arguments = [*options(many, run_folder, "two.csv"), "--ray", cluster.address]
    table = tmp_path / "two.csv"
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
        command = [sys.executable, "-m", "cxrtool", *map(str, arguments), "--resume"]
        before = len(list(tmp_path.glob(".two.csv.parts/*.json")))
        with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as driver:
            until(has_parts(table, before + 1), 120)
            driver.send_signal(number)
            _, errors = driver.communicate(timeout=60)
        assert driver.returncode == (-9 if number == signal.SIGKILL else 128 + number), errors
        time.sleep(1)
    done = run_cxr(*arguments, "--resume", "--precision", "bf16", cwd=tmp_path)
    assert done.returncode == 2
    assert "were computed with another precision than rows" in done.stderr
    done = run_cxr(*arguments, "--resume", cwd=tmp_path)
    assert "3,000 images, 150 of them unreadable" in done.stdout, done.stderr
    assert (tmp_path / "two.csv").read_bytes() == (tmp_path / "one.csv").read_bytes()
    assert not list(tmp_path.glob(".two*"))
