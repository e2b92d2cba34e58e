"""Training by several processes on this machine, which exchange gradients by gloo."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from cxrtool.cli.train import without_options
from cxrtool.data.dataset import Dataset
from cxrtool.data.preprocessing import Preprocessing
from cxrtool.data.radiograph import read_pixels
from cxrtool.model.bundle import read_header
from cxrtool.model.densenet import build_network
from cxrtool.settings import DataSettings
from cxrtool.training.augment import epoch_order
from cxrtool.training.feed import Layout, StepArrays
from cxrtool.training.processes import ALONE, Processes
from warm import until

SIDE, BATCH, EPOCHS, RATE = 64, 6, 5, 1e-5
STEPS = 4
"""Of an epoch: 22 images by 6, the last 4 of which are enough for two processes."""


def arguments(data: Path, out: Path, epochs: int = EPOCHS) -> list[str]:
    given = ["train", "--data", data, "--out", out, "--init", "none", "--image-size", SIDE, "--batch-size", BATCH]
    return [*map(str, given), "--lr", str(RATE), "--device", "cpu", "--epochs", str(epochs), "--precision", "fp32"]


def start(command: Sequence[str], folder: Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "NO_COLOR": "1", "OMP_NUM_THREADS": "1", **environment},
    )


def run(command: Sequence[str], folder: Path, **environment: str) -> tuple[int, str]:
    process = start(command, folder, **environment)
    _, stderr = process.communicate(timeout=280)
    return process.returncode, stderr


def by_one_process(data: Path, processes: int) -> tuple[list[float], list[float]]:
    """Return losses of train and of valid per epoch, by a plain loop whose BatchNorm sees one share at a time."""
    dataset = Dataset(DataSettings(root=data), ("train", "valid"))
    train, valid = dataset.usable("train"), dataset.usable("valid")
    preprocessing = Preprocessing(image_size=SIDE)
    network = build_network(preprocessing, "none", 0)
    network = network.to(memory_format=torch.channels_last)  # as in the run, so that sums are rounded alike
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE, fused=True)

    def load(manifest, rows):  # type: ignore[no-untyped-def]
        pixels = np.stack([read_pixels(manifest.file(int(row)), preprocessing) for row in rows])
        labels = torch.from_numpy(manifest.raw_labels[rows].astype(np.float32))
        known = labels != -1
        return torch.from_numpy(pixels)[:, None], (labels == 1).float(), known

    rows = np.arange(len(train))
    _, every, counts = load(train, rows)
    weight = ((1 - every) * counts).sum(0) / (every * counts).sum(0)
    losses, valid_losses = [], []
    for epoch in range(1, EPOCHS + 1):
        network.train()
        order = epoch_order(0, epoch, len(train))
        values = []
        for begin in range(0, len(order), BATCH):
            shares = [order[begin : begin + BATCH][rank::processes] for rank in range(processes)]
            cells = sum(load(train, share)[2].sum() for share in shares)
            optimizer.zero_grad()
            parts: list[float] = []
            for share in shares:
                kept = [buffer.clone() for buffer in network.buffers()]
                pixels, targets, known = load(train, share)
                # In float64 Adam's first steps, which are signs of gradients, would differ where these are close to 0.
                loss = functional.binary_cross_entropy_with_logits(
                    network(pixels), targets, pos_weight=weight, reduction="none"
                )
                part = (loss * known).sum() / cells
                part.backward()
                parts.append(part.item())
                if len(parts) > 1:  # the running statistics are those of the first process
                    for buffer, before in zip(network.buffers(), kept, strict=True):
                        buffer.copy_(before)
            optimizer.step()
            values.append(sum(parts))
        losses.append(float(np.mean(values)))
        network.eval()
        with torch.no_grad():
            pixels, targets, known = load(valid, np.arange(len(valid)))
            probability = torch.sigmoid(network(pixels).double())
            cross = -(targets * probability.log() + (1 - targets) * (1 - probability).log())
            valid_losses.append(float((cross * known).sum() / known.sum()))
    return losses, valid_losses


@pytest.fixture(scope="module")
def whole(few: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    code, stderr = run(["cxrtool", *arguments(few, folder / "run"), "--no-augment", "--gpus", "2"], folder)
    assert code == 0, stderr
    return folder / "run"


def history(run: Path, name: str) -> list[float]:
    return [row[name] for row in json.loads((run / "history.json").read_text())]


def digests(run: Path) -> list[str]:
    return [read_header(run / name).weights_sha256 for name in ("model.safetensors", "last.safetensors")]


def test_twenty_steps_of_two_processes_equal_one_that_normalises_share_by_share(few: Path, whole: Path) -> None:
    losses, valid_losses = by_one_process(few, 2)
    assert STEPS * EPOCHS == 20
    assert history(whole, "train_loss") == pytest.approx(losses, abs=1e-5)
    assert history(whole, "valid_loss") == pytest.approx(valid_losses, abs=1e-4)
    record = json.loads((whole / "model.json").read_text())
    assert record["processes"] == 2
    assert record["batch_norm"].startswith("over the images of each process")


@pytest.mark.takes_minutes
def test_a_signal_to_the_launcher_saves_the_step_and_the_run_goes_on_to_the_same_weights(
    few: Path, whole: Path, tmp_path: Path
) -> None:
    command = ["cxrtool", *arguments(few, tmp_path / "run"), "--no-augment", "--gpus", "2"]
    process = start(command, tmp_path)
    until(lambda: (tmp_path / "run" / "history.json").exists(), seconds=120)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 143
    errors = [line for line in stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert "is saved" in errors[0]
    assert "Traceback" not in stderr
    code, stderr = run(["cxrtool", "train", "--resume", str(tmp_path / "run"), "--gpus", "2"], tmp_path)
    assert code == 0, stderr
    assert digests(tmp_path / "run") == digests(whole)


def test_a_wrong_request_is_said_once(few: Path, tmp_path: Path) -> None:
    command = ["cxrtool", *arguments(few, tmp_path / "run"), "--gpus", "4"]
    code, stderr = run(command, tmp_path)
    assert code == 2
    assert [line for line in stderr.splitlines() if "error" in line] == [
        "error: 4 processes need 8 images in a step, but --batch-size is 6, and the train split has 22"
    ]
    assert not (tmp_path / "run").exists()


def test_more_gpus_than_there_are_is_refused(few: Path, tmp_path: Path) -> None:
    command = ["cxrtool", *arguments(few, tmp_path / "run"), "--device", "auto", "--gpus", "64"]
    code, stderr = run(command, tmp_path)
    assert code == 2
    assert stderr.startswith(f"error: --gpus 64: this machine has {torch.cuda.device_count()} GPUs")


@pytest.mark.takes_minutes
class TestLong:
    def test_three_processes_under_torchrun_equal_one(self, few: Path, tmp_path: Path) -> None:
        launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", "3", "-m", "cxrtool"]
        code, stderr = run([*launcher, *arguments(few, tmp_path / "run"), "--no-augment"], tmp_path)
        assert code == 0, stderr
        # The last 4 images are too few for three processes, so a step of 10 takes them.
        assert history(tmp_path / "run", "train_loss")[0] > 0
        assert json.loads((tmp_path / "run" / "model.json").read_text())["processes"] == 3

    def test_twice_is_the_same_to_the_bit(self, few: Path, whole: Path, tmp_path: Path) -> None:
        code, stderr = run(["cxrtool", *arguments(few, tmp_path / "run"), "--no-augment", "--gpus", "2"], tmp_path)
        assert code == 0, stderr
        assert digests(tmp_path / "run") == digests(whole)

    def test_ten_kills_of_a_random_process_do_not_change_the_result(
        self, few: Path, whole: Path, tmp_path: Path
    ) -> None:
        rng = random.Random(0)
        more = ["--no-augment", "--gpus", "2", "--max-restarts", "30"]
        process = start(["cxrtool", *arguments(few, tmp_path / "run"), *more], tmp_path)
        killed: list[int] = []
        while len(killed) < 10 and process.poll() is None:
            until(lambda: len(set(children(process.pid)) - set(killed)) == 2 or process.poll() is not None, seconds=120)
            time.sleep(rng.uniform(0, 8))  # before torch is imported, while the processes join, in any step
            alive = sorted(set(children(process.pid)) - set(killed))
            if alive:
                killed.append(rng.choice(alive))
                os.kill(killed[-1], signal.SIGKILL)
        _, stderr = process.communicate(timeout=280)
        assert process.returncode == 0, stderr
        assert len(killed) > 4, "the run must not end before it was disturbed"
        assert digests(tmp_path / "run") == digests(whole)
        assert history(tmp_path / "run", "train_loss") == history(whole, "train_loss")

    def test_a_full_disk_at_the_first_process_ends_all_with_one_message(self, few: Path, tmp_path: Path) -> None:
        site = tmp_path / "site"
        site.mkdir()
        limit = "import os, resource\nif os.environ.get('RANK') == '0':\n"
        limit += "    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000_000, 50_000_000))\n"
        (site / "sitecustomize.py").write_text(limit)
        command = ["cxrtool", *arguments(few, tmp_path / "run"), "--gpus", "2"]
        code, stderr = run(command, tmp_path, PYTHONPATH=with_path(site))
        assert code == 1
        errors = [line for line in stderr.splitlines() if line.startswith("error:")]
        assert len(errors) == 1
        assert "cannot write" in errors[0]
        assert "Traceback" not in stderr

    def test_a_slow_process_only_slows_the_others(self, few: Path, whole: Path, tmp_path: Path) -> None:
        site = tmp_path / "site"
        site.mkdir()
        slow = (
            "import os\nif os.environ.get('RANK') == '1':\n    import time\n    import cxrtool.training.step as step\n"
        )
        slow += "    plain = step.TrainingStep.__call__\n"
        slow += "    step.TrainingStep.__call__ = lambda self, block: (time.sleep(0.5), plain(self, block))[1]\n"
        (site / "sitecustomize.py").write_text(slow)
        command = ["cxrtool", *arguments(few, tmp_path / "run"), "--no-augment", "--gpus", "2"]
        code, stderr = run(command, tmp_path, PYTHONPATH=with_path(site))
        assert code == 0, stderr
        assert digests(tmp_path / "run") == digests(whole)


def with_path(folder: Path) -> str:
    return os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])


def children(process: int) -> list[int]:
    """Return the numbers of the processes that a process has started and that run cxr."""
    listed = subprocess.run(
        ["pgrep", "-P", str(process), "-f", "cxrtool train"], capture_output=True, text=True, check=False
    )
    return [int(line) for line in listed.stdout.split()]


def test_a_process_alone_keeps_what_it_has() -> None:
    rows = np.arange(5)
    assert ALONE.share(rows).tolist() == rows.tolist()
    assert (ALONE.sum(3), ALONE.largest(4)) == (3, 4)
    assert [Processes(rank, 3).share(rows).tolist() for rank in range(3)] == [[0, 3], [1, 4], [2]]


def test_options_of_the_launcher_do_not_reach_the_processes() -> None:
    given = ["train", "--gpus", "2", "--data", "d", "--max-restarts=3", "--gpus=4", "--out", "o"]
    assert without_options(given, ("--gpus", "--max-restarts")) == ["train", "--data", "d", "--out", "o"]


def test_black_images_without_labels_fill_a_share_that_was_left_out() -> None:
    empty = StepArrays(
        np.zeros((0, 1, 4, 4), np.uint8), np.zeros((0, 5), np.float32), np.zeros((0, 5), np.bool_), changes=None
    )
    filled = empty.with_at_least(2)
    assert filled.pixels.shape == (2, 1, 4, 4)
    assert not filled.mask.any()
    one = StepArrays(
        np.ones((1, 1, 4, 4), np.uint8), np.ones((1, 5), np.float32), np.ones((1, 5), np.bool_), changes=None
    )
    assert one.with_at_least(2).mask.tolist() == [[True] * 5, [False] * 5]
    assert one.with_at_least(1) is one


def test_a_block_gives_back_what_was_packed() -> None:
    from cxrtool.training.augment import draw_changes

    rng = np.random.default_rng(0)
    arrays = StepArrays(
        rng.integers(0, 256, (3, 1, 5, 5), dtype=np.uint8),
        rng.random((3, 5), dtype=np.float32),
        rng.random((3, 5)) > 0.5,
        draw_changes(0, 1, np.arange(3)),
    )
    layout = Layout.of(arrays)
    block = torch.empty(layout.size, dtype=torch.uint8)
    layout.pack(arrays, block)
    found = layout.unpack(block)
    assert np.array_equal(found.pixels, arrays.pixels)
    assert np.array_equal(found.targets, arrays.targets)
    assert np.array_equal(found.mask, arrays.mask)
    assert found.changes is not None
    assert arrays.changes is not None
    for name, values in vars(arrays.changes).items():
        assert np.array_equal(getattr(found.changes, name), values)
