"""Training that is killed, stopped and gone on with ends as training that never was."""

import json
import logging
import random
import shutil
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cxrtool.errors import InterruptedWorkError, RequestError
from cxrtool.evaluation.metrics import Evaluation
from cxrtool.model.bundle import open_bundle, read_header
from cxrtool.resolved_settings import ResolvedSettings
from cxrtool.training import epoch, loop
from cxrtool.training.loop import train
from cxrtool.training.state import (
    PREVIOUS_STATE_NAME,
    STATE_NAME,
    TrainingState,
    newest_state,
    read_state,
)
from tests_support import tiny_training
from warm import Warm, until

TIMES = ("images_per_second", "seconds")
MODELS = ("model.safetensors", "last.safetensors")
KILLS = 20
STEPS = 4
"""Of an epoch: 22 images by 6."""


def options(data: Path, **more: object) -> ResolvedSettings:
    return tiny_training(data, **{"train__epochs": 3, "train__batch_size": 6, **more})


def command(data: Path, out: str = "run", epochs: int = 3) -> list[object]:
    arguments = ["train", "--data", data, "--out", out, "--init", "none", "--image-size", 32, "--batch-size", 6]
    return [*arguments, "--lr", 0.001, "--device", "cpu", "--epochs", epochs]


def history(run: Path) -> list[dict[str, object]]:
    """history.json without times."""
    rows = json.loads((run / "history.json").read_text())
    return [{name: value for name, value in row.items() if name not in TIMES} for row in rows]


def without_times(state: TrainingState) -> TrainingState:
    rows = tuple(replace(row, images_per_second=0, seconds=0) for row in state.history)
    header = {key: value for key, value in (state.header or {}).items() if key not in ("created", "run")}
    return replace(state, history=rows, header=header)


def assert_same(run: Path, whole: Path) -> None:
    """Check that both models, the state with the optimizer, and the history are identical."""
    (first, ours), (second, theirs) = read_state(run / STATE_NAME), read_state(whole / STATE_NAME)
    assert without_times(first) == without_times(second)
    assert ours.keys() == theirs.keys()
    assert any(name.startswith("optimizer.") for name in ours)
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    for name in MODELS:
        one, other = (dict(open_bundle(folder / name).network.state_dict()) for folder in (run, whole))
        assert all(torch.equal(tensor, other[key]) for key, tensor in one.items())
        assert read_header(run / name).metrics == read_header(whole / name).metrics
    assert history(run) == history(whole)


def assert_agrees(run: Path) -> TrainingState:
    """Check that the state can be read and that models and history match it."""
    state, _ = read_state(run / STATE_NAME)
    assert state.header is not None
    assert read_header(run / "model.safetensors").weights_sha256 == state.best_sha256
    assert read_header(run / "last.safetensors").weights_sha256 == state.header["weights_sha256"]
    assert len(history(run)) == state.epoch
    return state


def with_valid_losses(monkeypatch: pytest.MonkeyPatch, values: Sequence[float]) -> None:
    """Set the losses on valid; with the real ones, rounding on this processor would decide which epoch is best."""
    validate = loop._validate

    def replaced(work: loop.Work, state: TrainingState, losses: epoch.Losses) -> tuple[Evaluation, float]:
        evaluation, _ = validate(work, state, losses)
        return evaluation, values[state.epoch]

    monkeypatch.setattr(loop, "_validate", replaced)


def saved_at(run: Path) -> int:
    return (run / STATE_NAME).stat().st_mtime_ns if (run / STATE_NAME).exists() else 0


@pytest.fixture(scope="module")
def whole(few: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three epochs without interruption."""
    run = tmp_path_factory.mktemp("whole") / "run"
    train(options(few), run)
    return run


@pytest.mark.takes_minutes
def test_a_run_killed_20_times_ends_like_an_uninterrupted_run(few: Path, warm: Warm, tmp_path: Path) -> None:
    """Kills come at random moments: starting, training, validating and saving.

    Eight of them wait until the process has saved, so that the run advances on a slow machine too.
    """
    draws = random.Random(6)
    run, done = tmp_path / "run", 0
    for after_a_save in draws.sample([True] * 8 + [False] * (KILLS - 8), KILLS):
        before = saved_at(run)
        begun = (run / "settings.yaml").exists()
        child = warm.start(*(["train", "--resume", "run"] if begun else command(few, epochs=1000)), cwd=tmp_path)
        if after_a_save:
            until(lambda before=before: saved_at(run) != before)
        time.sleep(draws.uniform(0.0, 0.7))
        child.kill()
        assert child.wait().code == -signal.SIGKILL
        if not (run / STATE_NAME).exists():
            continue
        state, _ = read_state(run / STATE_NAME)  # never unreadable
        assert state.epoch >= done, "a complete epoch was lost"
        if (run / "history.json").exists():
            assert len(history(run)) <= state.epoch, "the history has an epoch that was not saved"
        done = state.epoch
    assert done > 2, "the kills were too early to show anything"
    ended = warm.run("train", "--resume", "run", "--epochs", done + 1, cwd=tmp_path)
    assert ended.code == 0, ended.stderr
    assert not list(run.glob(".*.partial")), "temporary files of killed processes were not removed"
    train(options(few, train__epochs=done + 1), tmp_path / "whole")
    assert_same(run, tmp_path / "whole")


@pytest.mark.takes_minutes
def test_20_kills_while_saving_leave_nothing_unreadable(few: Path, whole: Path, warm: Warm, tmp_path: Path) -> None:
    """The process only saves; it is killed while a file is half written, or later."""
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    program = """
from pathlib import Path
import torch
from cxrtool.data.preprocessing import Preprocessing
from cxrtool.model.densenet import ChestNet
from cxrtool.training.folder import save_epoch
from cxrtool.training.state import newest_state, restore, save_state
network = ChestNet(Preprocessing(image_size=32))
optimizer = torch.optim.Adam(network.parameters())
state, tensors = newest_state(Path("run"))
restore(tensors, network, optimizer)
while True:
    save_state(Path("run"), state, network, optimizer)
    Path("run/last.safetensors").unlink()
    save_epoch(Path("run"), state, network.state_dict())
"""
    draws = random.Random(7)
    for _ in range(KILLS):
        left = set(run.glob(".*.partial"))
        child = warm.start("--version", cwd=tmp_path, patch=program)
        until(lambda left=left: set(run.glob(".state.safetensors.*.partial")) - left)
        time.sleep(draws.uniform(0, 0.4))
        child.kill()
        assert child.wait().code == -signal.SIGKILL
        for name in (STATE_NAME, PREVIOUS_STATE_NAME):
            read_state(run / name)
        open_bundle(run / "model.safetensors")
        if (run / "last.safetensors").exists():
            open_bundle(run / "last.safetensors")
        assert len(history(run)) == 3
    ended = warm.run("train", "--resume", "run", cwd=tmp_path)
    assert ended.code == 0, ended.stderr
    assert not list(run.glob(".*.partial"))
    assert_same(run, whole)


@pytest.mark.parametrize("seed", range(2))
def test_a_run_stopped_at_random_steps_loses_no_step(few: Path, whole: Path, tmp_path: Path, seed: int) -> None:
    draws, run = random.Random(seed), tmp_path / "run"
    done, stops = 0, 0
    while True:
        asked = iter(range(draws.randint(3, 8), -1, -1))  # before each step, after each batch of valid
        try:
            train(
                options(few),
                *((None, run) if run.exists() else (run, None)),
                stop=lambda asked=asked: None if next(asked) else signal.SIGTERM,
            )
            break
        except InterruptedWorkError as error:
            stopped = error
        stops += 1
        state, _ = read_state(run / STATE_NAME)
        assert stopped.exit_code == 143
        assert f"in epoch {state.epoch + 1} after step {state.step}" in stopped.message
        assert STEPS * state.epoch + state.step > done, "a step was lost"
        done = STEPS * state.epoch + state.step
    assert stops >= 2
    assert_same(run, whole)


def test_training_continues_from_the_previous_state_if_the_newest_is_damaged(
    few: Path, whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    content = bytearray((run / STATE_NAME).read_bytes())
    content[len(content) // 2] ^= 1
    (run / STATE_NAME).write_bytes(content)
    result = train(options(few), resume=run)
    assert "does not match its digest" in caplog.text
    assert "2 complete epochs" in caplog.text
    assert [row.epoch for row in result.history] == [1, 2, 3]
    assert_same(run, whole)


def test_models_and_history_go_back_with_the_state(few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For any best epoch, with only the previous state available."""
    with_valid_losses(monkeypatch, [4, 3, 5, 2])
    run = tmp_path / "run"
    for epochs, best, best_before in ((2, 2, 1), (3, 2, 2), (4, 4, 2)):
        train(
            options(few, train__epochs=epochs, train__select_by="loss"),
            *((None, run) if run.exists() else (run, None)),
        )
        assert assert_agrees(run).best_epoch == best
        copy = Path(shutil.copytree(run, tmp_path / f"copy{epochs}"))
        (copy / STATE_NAME).write_bytes(b"cut")
        before, _ = read_state(copy / PREVIOUS_STATE_NAME)
        assert (before.epoch, before.best_epoch) == (epochs - 1, best_before)
        with pytest.raises(InterruptedWorkError):
            train(
                options(few, train__epochs=5, train__select_by="loss"),
                resume=copy,
                stop=lambda: signal.SIGINT,
            )
        assert assert_agrees(copy) == before


def test_two_damaged_states_are_refused(few: Path, whole: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    for name in (STATE_NAME, PREVIOUS_STATE_NAME):
        (run / name).write_bytes((run / name).read_bytes()[:-1])
    with pytest.raises(RequestError, match="cannot be read"):
        newest_state(run)


@pytest.mark.parametrize(("losses", "best"), [((3, 2, 4), 2), ((2, 3, 4), 1)])
def test_files_missing_after_a_kill_are_written_from_the_state(
    few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, losses: tuple[float, ...], best: int
) -> None:
    """Killed between the second epoch's state and its other files; `best` is that epoch or the one before."""
    with_valid_losses(monkeypatch, losses)
    whole, run = tmp_path / "whole", tmp_path / "run"

    def settings(epochs: int) -> ResolvedSettings:
        return options(few, train__epochs=epochs, train__select_by="loss")

    train(settings(1), whole)
    shutil.copytree(whole, run)
    train(settings(2), resume=whole)
    for name in (STATE_NAME, PREVIOUS_STATE_NAME):
        shutil.copy(whole / name, run)
    with pytest.raises(InterruptedWorkError):
        train(settings(3), resume=run, stop=lambda: signal.SIGINT)
    assert assert_agrees(run).best_epoch == best
    train(settings(3), resume=whole)
    train(settings(3), resume=run)
    assert_same(run, whole)


@pytest.mark.parametrize(("losses", "gone"), [((3, 2), False), ((2, 3), True)])
def test_a_missing_best_model_is_restored_from_the_state_if_possible(
    few: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    losses: tuple[float, ...],
    gone: bool,
) -> None:
    """The state has the weights of the newest epoch only; if an earlier one was best, the next epoch becomes best."""
    with_valid_losses(monkeypatch, (*losses, 4))
    run = tmp_path / "run"
    train(options(few, train__epochs=2, train__select_by="loss"), run)
    for name in (*MODELS, "history.csv", "history.json"):
        (run / name).unlink()
    with caplog.at_level(logging.WARNING):
        result = train(options(few, train__epochs=3, train__select_by="loss"), resume=run)
    assert ("the model of epoch 1, the best so far, is missing" in caplog.text) == gone
    assert result.best.epoch == (3 if gone else 2)
    assert assert_agrees(run).best_epoch == result.best.epoch


def test_resume_starts_over_after_a_kill_before_the_first_state(few: Path, whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(whole / "settings.yaml", run)
    train(options(few), resume=run)
    assert_same(run, whole)


def test_of_two_runs_in_one_folder_the_second_is_refused(few: Path, warm: Warm, tmp_path: Path) -> None:
    first = warm.start(*command(few, epochs=1000), cwd=tmp_path)
    until((tmp_path / "run" / STATE_NAME).exists)
    second = warm.run("train", "--resume", "run", cwd=tmp_path)
    assert second.code == 2
    assert "another process is training in run" in second.stderr
    third = warm.run(*command(few), cwd=tmp_path)
    assert third.code == 2
    assert "already contains a run" in third.stderr
    first.kill(signal.SIGTERM)
    assert first.wait().code == 143


def test_a_second_signal_ends_at_once(few: Path, warm: Warm, tmp_path: Path) -> None:
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        hang = "import time, cxrtool.training.step as step; step.TrainingStep.__call__ = lambda *_: time.sleep(1000)"
        child = warm.start(*command(few, out=f"run{code}", epochs=1000), cwd=tmp_path, patch=hang)
        until((tmp_path / f"run{code}" / STATE_NAME).exists)
        child.kill(number)
        until(lambda stderr=child.stderr: "repeat to stop at once" in stderr.read_text())
        child.kill(number)
        ended = child.wait()
        assert ended.code == code
        assert "Traceback" not in ended.stderr
