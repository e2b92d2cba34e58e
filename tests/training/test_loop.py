import json
import shutil
import signal
from pathlib import Path

import pytest
import torch

from cxrtool.errors import ImageError, InterruptedWorkError, RequestError
from cxrtool.evaluation.metrics import evaluate
from cxrtool.model.bundle import open_bundle
from cxrtool.progress import Progress
from cxrtool.training import loop
from cxrtool.training.loop import train
from tests_support import random_table, tiny_training
from warm import Warm, until


def weights(path: Path) -> dict[str, torch.Tensor]:
    return dict(open_bundle(path).network.state_dict())


def equal(a: Path, b: Path) -> bool:
    first, second = weights(a), weights(b)
    return all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_the_same_seed_gives_identical_weights_with_any_number_of_threads(phantoms: Path, tmp_path: Path) -> None:
    train(tiny_training(phantoms, train__epochs=1, runtime__workers=1), tmp_path / "a")
    train(tiny_training(phantoms, train__epochs=1, runtime__workers=3), tmp_path / "b")
    train(tiny_training(phantoms, train__epochs=1, train__seed=1), tmp_path / "c")
    assert equal(tmp_path / "a/last.safetensors", tmp_path / "b/last.safetensors")
    assert not equal(tmp_path / "a/last.safetensors", tmp_path / "c/last.safetensors")


def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_run(phantoms: Path, tmp_path: Path) -> None:
    train(tiny_training(phantoms), tmp_path / "whole")

    def stop_in_second_epoch() -> int | None:
        return signal.SIGINT if (tmp_path / "parts" / "history.csv").exists() else None

    with pytest.raises(InterruptedWorkError) as caught:
        train(tiny_training(phantoms), tmp_path / "parts", stop=stop_in_second_epoch)
    assert caught.value.exit_code == 130
    assert "1 complete epoch is saved" in caught.value.message
    result = train(tiny_training(phantoms), resume=tmp_path / "parts")
    assert [row.epoch for row in result.history] == [1, 2]
    for name in ("last.safetensors", "model.safetensors"):
        assert equal(tmp_path / "whole" / name, tmp_path / "parts" / name)


def test_a_cache_does_not_change_weights_and_a_run_can_be_resumed_with_or_without_it(
    phantoms: Path, tmp_path: Path
) -> None:
    train(tiny_training(phantoms), tmp_path / "without")
    place = tmp_path / "pixels"
    train(tiny_training(phantoms, train__epochs=1, data__cache_dir=place), tmp_path / "mixed")
    caches = {path.parent.name for path in place.rglob("pixels-*.npy")}
    assert caches == {"train-frontal-32px", "valid-frontal-32px"}
    train(tiny_training(phantoms), resume=tmp_path / "mixed")
    for name in ("last.safetensors", "model.safetensors"):
        assert equal(tmp_path / "without" / name, tmp_path / "mixed" / name)
    train(tiny_training(phantoms, train__epochs=1), tmp_path / "other")
    train(tiny_training(phantoms, data__cache_dir=place), resume=tmp_path / "other")
    assert equal(tmp_path / "without/last.safetensors", tmp_path / "other/last.safetensors")


def test_an_unreadable_image_stops_training_and_with_a_cache_before_the_first_epoch(
    phantoms: Path, tmp_path: Path
) -> None:
    data = Path(shutil.copytree(phantoms, tmp_path / "data"))
    bad = sorted((data / "train").rglob("*frontal.jpg"))[4]
    bad.write_bytes(bad.read_bytes()[:500])
    errors = []
    for run, cache in (("a", None), ("b", True)):
        shown: list[Progress] = []
        with pytest.raises(ImageError) as caught:
            train(tiny_training(data, data__cache=cache), tmp_path / run, progress=shown.append)
        errors.append((caught.value.message, caught.value.advice, caught.value.exit_code))
    assert errors[0] == errors[1]
    assert str(bad) in errors[0][0]
    assert not any(step.phase.startswith("epoch") for step in shown)


def test_settings_are_checked_before_a_cache_is_built(phantoms: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no such file"):
        train(
            tiny_training(phantoms, train__init="none.safetensors", data__cache_dir=tmp_path / "pixels"),
            tmp_path / "run",
        )
    assert not (tmp_path / "pixels").exists()


def test_the_bundle_contains_the_best_epoch(phantoms: Path, tmp_path: Path) -> None:
    by_auroc = train(tiny_training(phantoms, train__epochs=3), tmp_path / "a")
    assert by_auroc.best.valid_auroc == max(row.valid_auroc or 0 for row in by_auroc.history)
    by_loss = train(tiny_training(phantoms, train__epochs=3, train__select_by="loss"), tmp_path / "b")
    assert by_loss.best.valid_loss == min(row.valid_loss for row in by_loss.history)
    assert open_bundle(by_loss.bundle).header.metrics["epoch"] == by_loss.best.epoch


def test_of_equally_good_epochs_the_first_is_kept(few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    same = evaluate(random_table(20)), 0.5
    monkeypatch.setattr(loop, "_validate", lambda _work, _state, _losses: same)
    for select_by in ("auroc", "loss"):
        folder = tmp_path / select_by
        result = train(tiny_training(few, train__select_by=select_by), folder)
        assert [row.valid_loss for row in result.history] == [0.5, 0.5]
        assert result.best.epoch == 1
        assert open_bundle(result.bundle).header.metrics["epoch"] == 1


def test_a_last_batch_of_one_at_32_px_does_not_break_batch_norm(phantoms: Path, tmp_path: Path) -> None:
    rows = (phantoms / "train.csv").read_text().splitlines()
    data = Path(shutil.copytree(phantoms, tmp_path / "data"))
    frontal = [row for row in rows[1:] if "frontal" in row]
    (data / "train.csv").write_text("\n".join([rows[0], *frontal[:9]]) + "\n")
    result = train(tiny_training(data, train__batch_size=4, train__epochs=1), tmp_path / "run")
    assert result.best.epoch == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_the_process_and_finished_steps_are_saved(
    phantoms: Path, tmp_path: Path, number: signal.Signals, code: int, warm: Warm
) -> None:
    options = ["--data", phantoms, "--out", "run", "--init", "none", "--image-size", 32, "--device", "cpu"]
    process = warm.start("train", *options, "--epochs", 500, "--batch-size", 8, cwd=tmp_path)
    until((tmp_path / "run" / "history.csv").exists)
    process.kill(number)
    ended = process.wait()
    assert ended.code == code, ended.stderr
    assert "cxr train --resume run" in ended.stderr
    assert "Traceback" not in ended.stderr
    epochs = len((tmp_path / "run" / "history.csv").read_text().splitlines()) - 1
    open_bundle(tmp_path / "run" / "model.safetensors")
    assert not list((tmp_path / "run").glob("*.partial"))
    done = warm.run("train", "--resume", "run", "--epochs", epochs + 1, "--json", cwd=tmp_path, stdout=tmp_path / "out")
    assert done.code == 0, done.stderr
    assert len(json.loads((tmp_path / "out").read_text())["history"]) == epochs + 1
