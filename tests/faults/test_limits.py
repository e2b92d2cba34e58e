"""A full disk, missing permissions, too little memory, a loss that is not finite, a read that hangs."""

import csv
import fcntl
import json
import os
import random
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from test_kills import assert_same, command, options

from conftest import Call
from cxrtool.errors import CxrError
from cxrtool.training import step
from cxrtool.training.loop import train
from cxrtool.training.state import STATE_NAME, read_state
from tests_support import link_radiographs
from warm import Ended, Warm, until

MB = 10**6


@contextmanager
def mounted(folder: Path, settings: str) -> Iterator[Path]:
    """Mount a tmpfs for the test."""
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", settings, "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


@contextmanager
def narrow_pipe(path: Path) -> Iterator[int]:
    """Create a FIFO with a buffer of 4 KiB, so that writers wait for the reader, and give its read end."""
    os.mkfifo(path)
    reader = os.open(path, os.O_RDWR)  # does not wait for a writer
    try:
        fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
        yield reader
    finally:
        os.close(reader)


def assert_two_lines(ended: Ended, code: int) -> tuple[str, str]:
    """Check that stderr ends with one line of error and one of advice, and return them."""
    assert ended.code == code, ended
    assert "Traceback" not in ended.stderr
    *_, error, advice = ended.stderr.splitlines()
    assert error.startswith("error: ")
    assert ended.stderr.count("error: ") == 1
    return error, advice


def test_a_full_disk_stops_training_and_it_can_be_resumed(few: Path, warm: Warm, tmp_path: Path) -> None:
    train(options(few, train__epochs=2), tmp_path / "whole")
    with mounted(tmp_path / "disk", "size=70m") as disk:  # room for the first state, not for one with an optimizer
        error, advice = assert_two_lines(warm.run(*command(few, epochs=2), cwd=disk), 1)
        assert error == "error: cannot write run/state.safetensors: No space left on device"
        assert advice == "Free some space, then continue: cxr train --resume run"
        assert read_state(disk / "run" / STATE_NAME)[0].epoch == 0
        assert not list((disk / "run").glob(".*.partial"))
        subprocess.run(["mount", "-o", "remount,size=400m", str(disk)], check=True)
        ended = warm.run("train", "--resume", "run", cwd=disk)
        assert ended.code == 0, ended.stderr
        assert_same(disk / "run", tmp_path / "whole")


def test_a_limit_on_file_sizes_stops_training_like_a_full_disk(few: Path, warm: Warm, tmp_path: Path) -> None:
    ended = warm.run(*command(few), cwd=tmp_path, limits={"RLIMIT_FSIZE": 50 * MB})
    error, _ = assert_two_lines(ended, 1)
    assert error == "error: cannot write run/state.safetensors: File too large"
    assert read_state(tmp_path / "run" / STATE_NAME)[0].epoch == 0


@pytest.fixture(scope="module")
def table(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 500 links to radiographs, whose table takes more than 50 kB."""
    folder = tmp_path_factory.mktemp("table") / "in"
    link_radiographs(phantoms, folder, 500)
    return folder


def test_a_full_disk_stops_predict_and_it_can_be_resumed(
    warm: Warm, run_folder: Path, table: Path, tmp_path: Path
) -> None:
    arguments = ["predict", table, "--model", run_folder, "--device", "cpu", "--csv"]
    assert warm.run(*arguments, "whole.csv", cwd=tmp_path).code == 0
    with mounted(tmp_path / "disk", "size=1m") as disk:
        (disk / "ballast").write_bytes(bytes(MB))
        error, advice = assert_two_lines(warm.run(*arguments, disk / "out.csv", cwd=tmp_path), 1)
        assert error == f"error: cannot write {disk}/out.csv: No space left on device"
        assert "--resume-csv" in advice
        assert not (disk / "out.csv").exists()
        (disk / "ballast").unlink()
        ended = warm.run(*arguments, disk / "out.csv", "--resume-csv", cwd=tmp_path)
        assert ended.code == 0, ended.stderr
        assert int(ended.stderr.split("continuing after ")[1].split()[0].replace(",", "")) > 0
        assert (disk / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    ended = warm.run(*arguments, "out.csv", cwd=tmp_path, limits={"RLIMIT_FSIZE": 20_000})
    error, _ = assert_two_lines(ended, 1)
    assert error == "error: cannot write out.csv: File too large"


def test_a_table_killed_at_5_random_moments_ends_like_an_uninterrupted_one(
    warm: Warm, run_folder: Path, table: Path, tmp_path: Path
) -> None:
    arguments = ["predict", table, "--model", run_folder, "--device", "cpu", "--csv"]
    assert warm.run(*arguments, "whole.csv", cwd=tmp_path).code == 0
    partial, out, draws = tmp_path / ".out.csv.partial", tmp_path / "out.csv", random.Random(8)
    for _ in range(5):
        child = warm.start(*arguments, "out.csv", "--resume-csv", cwd=tmp_path)
        size = draws.randint(1, (tmp_path / "whole.csv").stat().st_size // 2)
        until(lambda size=size: out.exists() or (partial.exists() and partial.stat().st_size >= size))
        child.kill()
        assert child.wait().code == -signal.SIGKILL
    ended = warm.run(*arguments, "out.csv", "--resume-csv", cwd=tmp_path)
    assert ended.code == 0, ended.stderr
    assert int(ended.stderr.split("continuing after ")[1].split()[0].replace(",", "")) > 0
    assert out.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert not list(tmp_path.glob(".out.csv*"))


@pytest.mark.parametrize("how", [["--json"], []])
def test_stdout_on_a_full_disk_ends_with_one_line_of_error(
    how: list[str], warm: Warm, run_folder: Path, phantoms: Path, tmp_path: Path
) -> None:
    image = sorted((phantoms / "test").rglob("*frontal.jpg"))[0]
    ended = warm.run("predict", image, "--model", run_folder, *how, cwd=tmp_path, stdout=Path("/dev/full"))
    error, _ = assert_two_lines(ended, 1)
    assert error == "error: cannot write the output: No space left on device"


def test_an_output_that_cannot_be_written_is_refused_before_the_first_epoch(
    few: Path, warm: Warm, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    error, _ = assert_two_lines(warm.run(*command(few, out="file/run"), cwd=tmp_path), 2)
    assert "cannot write in file/run" in error
    with mounted(tmp_path / "disk", "size=1m,ro") as disk:  # not writable for root either
        error, advice = assert_two_lines(warm.run(*command(few), cwd=disk), 2)
        assert error == "error: cannot write in run: Read-only file system"
        assert advice == "Choose another --out."


@pytest.mark.parametrize("how", [["--json"], []])
def test_a_closed_pipe_ends_predict_quietly(
    how: list[str], warm: Warm, run_folder: Path, table: Path, tmp_path: Path
) -> None:
    with narrow_pipe(tmp_path / "pipe") as reader:
        child = warm.start("predict", table, "--model", run_folder, *how, cwd=tmp_path, stdout=tmp_path / "pipe")
        assert os.read(reader, 100)
    ended = child.wait()
    assert ended.code == 0, ended.stderr
    assert "rror" not in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_table_cut_short_by_a_closed_pipe_is_an_error(
    warm: Warm, run_folder: Path, table: Path, tmp_path: Path
) -> None:
    arguments = ["predict", table, "--model", run_folder, "--json", "--csv", "out.csv"]
    with narrow_pipe(tmp_path / "pipe") as reader:
        child = warm.start(*arguments, cwd=tmp_path, stdout=tmp_path / "pipe")
        assert os.read(reader, 100)
    _, advice = assert_two_lines(child.wait(), 1)
    assert "--resume-csv" in advice
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.takes_minutes
def test_out_of_memory_names_a_batch_size_that_fits(phantoms: Path, warm: Warm, tmp_path: Path) -> None:
    """A limit of 3 GB on top of what the process has: 96 images of 128 px do not fit."""
    arguments = ["train", "--data", phantoms, "--init", "none", "--image-size", 128, "--device", "cpu", "--epochs", 1]
    arguments += ["--precision", "fp32"]
    limits = {"RLIMIT_AS": 3000 * MB}
    ended = warm.run(*arguments, "--out", "big", "--batch-size", 96, cwd=tmp_path, limits=limits)
    error, advice = assert_two_lines(ended, 1)
    assert error.startswith("error: memory has run out in epoch 1, in a step of 96 images (")
    fits = int(advice.split("--batch-size ")[1].split(":")[0])
    assert 2 <= fits <= 48
    assert read_state(tmp_path / "big" / STATE_NAME)[0].epoch == 0
    ended = warm.run(*arguments, "--out", "small", "--batch-size", fits, cwd=tmp_path, limits=limits)
    assert ended.code == 0, ended.stderr


def test_out_of_memory_outside_of_training_names_half_the_batch(
    phantoms: Path, run_folder: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*_: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory")

    from cxrtool.engines.device import Runtime

    monkeypatch.setattr(Runtime, "tensor", no_memory)
    done = call("eval", "--data", phantoms, "--model", run_folder, "--batch-size", 6, "--device", "cpu")
    assert done.code == 1
    error, advice = done.stderr.splitlines()[-2:]
    assert error.startswith("error: memory has run out with 6 images in a batch ([enforce fail")
    assert advice == "Use a smaller runtime.batch_size (--batch-size outside of train): try 3."


def test_a_loss_that_is_not_finite_names_the_step_and_its_images(
    few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The third step of the second epoch is named."""
    plain, losses = step.masked_bce, []

    def spoilt(*arguments: torch.Tensor) -> torch.Tensor:
        loss = plain(*arguments)
        losses.append(loss)
        return loss * float("nan") if len(losses) == 7 else loss  # 4 steps and 3

    monkeypatch.setattr(step, "masked_bce", spoilt)
    with pytest.raises(CxrError, match="the loss is not finite in epoch 2 at step 3") as caught:
        train(options(few), tmp_path / "run")
    report = json.loads((tmp_path / "run" / "not-finite.json").read_text())
    assert (report["epoch"], report["step"], len(report["paths"])) == (2, 3, 6)
    assert all(Path(path).is_file() for path in report["paths"])
    assert f"{report['paths'][0]}, {report['paths'][1]} and 4 more" in caught.value.message
    state, _ = read_state(tmp_path / "run" / STATE_NAME)
    assert (state.epoch, state.step) == (1, 0)


def test_weights_that_are_not_finite_are_not_saved(few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(self: step.TrainingStep, _: object) -> torch.Tensor:
        next(self._network.parameters()).data.fill_(float("inf"))
        return torch.tensor(0.5)

    monkeypatch.setattr(step.TrainingStep, "__call__", spoil)
    calls = iter([None, signal.SIGINT])
    with pytest.raises(CxrError, match="the weights are not finite in epoch 1 at step 1"):
        train(options(few), tmp_path / "run", stop=lambda: next(calls))
    assert read_state(tmp_path / "run" / STATE_NAME)[0].step == 0


HANG = """
import time, cxrtool.data.batches as batches
plain = batches.read_pixels
def read(path, *rest):
    if path.name == "HANGS":
        time.sleep(1000)
    if path.name == "BREAKS":
        raise ZeroDivisionError("a bug")
    return plain(path, *rest)
batches.read_pixels = read
"""


def with_link(few: Path, name: str, folder: Path) -> Path:
    """Copy the data set and rename one training image."""
    data = Path(shutil.copytree(few, folder / "data"))
    rows = list(csv.reader((data / "train.csv").open()))
    row = next(row for row in rows if "frontal" in row[0])
    image = data / row[0].split("/", 1)[1]
    image.rename(image.with_name(name))
    row[0] = str(Path(row[0]).with_name(name))
    with (data / "train.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return data


@pytest.mark.parametrize(
    ("name", "message"), [("HANGS", "has hung for 2 s"), ("BREAKS", "unexpected ZeroDivisionError: a bug")]
)
def test_a_read_that_hangs_or_breaks_names_the_file_and_the_process_ends(
    name: str, message: str, few: Path, warm: Warm, tmp_path: Path
) -> None:
    data = with_link(few, name, tmp_path)
    hang = "import os; os.environ['CXR_RUNTIME__READ_TIMEOUT'] = '2'\n" + HANG
    error, _ = assert_two_lines(warm.run(*command(data), cwd=tmp_path, patch=hang), 1)
    assert name in error
    assert message in error
    assert read_state(tmp_path / "run" / STATE_NAME)[0].epoch == 0


def test_low_disk_space_gives_a_warning(
    few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=100 * MB)
    monkeypatch.setattr("cxrtool.training.folder.shutil.disk_usage", lambda _: usage)
    train(options(few, train__epochs=1), tmp_path / "run")
    assert "has 100 MB free, but a run takes about 254 MB" in caplog.text
    written = sum(path.stat().st_size for path in (tmp_path / "run").iterdir())
    assert written < 254 * MB
