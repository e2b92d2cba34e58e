"""How a run was made, what differs here, and the run made again."""

import hashlib
import json
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import yaml

from cxrtool.errors import InterruptedWorkError, ModelError, RequestError
from cxrtool.evaluation.ledger import Look, record_look
from cxrtool.model.bundle import open_bundle, read_header
from cxrtool.model.header import BundleHeader
from cxrtool.resolved_settings import load_settings
from cxrtool.tasks.repeat import REPEATED_NAME, repeat_run
from cxrtool.tasks.reproduce import Difference, Recipe, Step, recipe_of, run_folder
from cxrtool.tasks.tune import calibrate_model
from tests_support import change_header


def differences(recipe: Recipe) -> dict[str, Difference]:
    return {one.what: one for one in recipe.differences}


def change_settings(run: Path, section: str, **values: object) -> None:
    content = yaml.safe_load((run / "settings.yaml").read_text())
    content[section] |= values
    (run / "settings.yaml").write_text(yaml.safe_dump(content))


def change_json(path: Path, change: Callable[[Any], Any]) -> None:
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def look_of(header: BundleHeader, command: str = "eval", **options: object) -> Look:
    valid = header.data["valid"].sheet_sha256
    return Look("t", command, "valid", valid, "", 6, 6, 6, header.weights_sha256, "0.1.0", options)


def test_the_steps_hold_exactly_what_differs_from_the_defaults(run: Path, phantoms: Path) -> None:
    recipe = recipe_of(run)
    common = {"data.root": str(phantoms), "runtime.device": "cpu", "runtime.threads": 1}
    training = {"init": "none", "image_size": 32, "epochs": 2, "batch_size": 8, "lr": 0.001}
    assert [step.command for step in recipe.steps] == ["train", "tune"]
    train, tune = (dict(step.settings) for step in recipe.steps)
    precision = json.loads((run / "model.json").read_text())["precision"]
    expected = {f"train.{key}": value for key, value in training.items()}
    assert train == common | expected | {"runtime.precision": precision}
    assert tune == common
    assert recipe.automatic == {"runtime.precision": precision, "runtime.threads": 1}
    assert recipe.differences == ()
    assert recipe.notes == ()


def test_a_run_of_several_processes_says_so(run: Path) -> None:
    change_json(run / "model.json", lambda about: about | {"processes": 4})
    assert recipe_of(run).notes == ("4 processes trained together: only cxr train with --gpus 4 gives these weights",)


def test_steps_follow_the_bundle_and_the_ledger(run: Path) -> None:
    header = read_header(run / "model.safetensors")
    assert header.tuning is not None
    tuning = header.tuning.model_dump(mode="json") | {"criterion": "recall", "target": 0.9, "split": "test"}
    change_header(run / "model.safetensors", tuning=tuning)
    record_look(run, look_of(header, level="image", views="all", unknown=3))
    record_look(run, look_of(header, level="image", views="all", unknown=3))
    record_look(run, look_of(header, "report", level="image"))
    record_look(run, replace(look_of(header), weights_sha256="of another epoch"))
    change_settings(run, "data", blank="ignore")
    steps = {step.command: step.settings for step in recipe_of(run).steps}
    assert list(steps) == ["train", "tune", "eval"]
    assert {"tune.criterion": "recall", "tune.target": 0.9, "tune.split": "test"}.items() <= steps["tune"].items()
    assert steps["tune"]["data.i_know"] is True
    own = {"eval.split": "valid", "eval.level": "image", "data.views": "all", "data.blank": "ignore"}
    assert own.items() <= steps["eval"].items()
    assert "runtime.precision" not in steps["eval"]
    assert "data.views" not in steps["tune"]


def test_a_run_is_the_same_to_the_bit_even_after_an_interruption(run: Path, tmp_path: Path) -> None:
    precise = load_settings({"data.root": recipe_of(run).steps[0].settings["data.root"]}, environ={}).settings
    calibrate_model(run, precise)
    recipe = recipe_of(run)
    out = tmp_path / "again"
    calls = count()
    with pytest.raises(InterruptedWorkError, match="after step 3"):
        repeat_run(recipe, out, stop=lambda: signal.SIGINT if next(calls) >= 3 else None)
    result = repeat_run(recipe, out)
    assert result.same_weights
    weights = [open_bundle(folder / "model.safetensors").network.state_dict() for folder in (run, out)]
    assert all(tensor.equal(weights[1][name]) for name, tensor in weights[0].items())
    assert (result.threshold, result.calibration) == (0, 0)
    assert read_header(out / "model.safetensors").thresholds == read_header(run / "model.safetensors").thresholds
    assert [one.epoch for one in result.epochs] == [1, 2]
    assert [result.largest(name) for name in ("train_loss", "valid_loss", "valid_auroc")] == [0, 0, 0]
    kept = json.loads((out / REPEATED_NAME).read_text())
    assert kept["result"]["same_weights"] is True
    assert repeat_run(recipe, out) == result
    other = replace(recipe, header=recipe.header.model_copy(update={"weights_sha256": "another"}))
    with pytest.raises(RequestError, match="repeats another run"):
        repeat_run(other, out)


def test_another_result_is_measured_epoch_by_epoch(run: Path, tmp_path: Path) -> None:
    recipe = recipe_of(run)
    changed = dict(recipe.steps[0].settings) | {"train.seed": 1, "train.epochs": 1}
    result = repeat_run(replace(recipe, steps=(Step("train", changed), recipe.steps[1])), tmp_path / "other")
    assert not result.same_weights
    ours, theirs = (json.loads((folder / "history.json").read_text())[0] for folder in (run, tmp_path / "other"))
    (epoch,) = result.epochs
    for name in ("train_loss", "valid_loss", "valid_auroc"):
        assert getattr(epoch, name) == abs(ours[name] - theirs[name]) == result.largest(name)
    assert epoch.train_loss
    first, second = (read_header(folder / "model.safetensors").thresholds for folder in (run, tmp_path / "other"))
    assert first is not None
    assert second is not None
    assert result.threshold == max(abs(first[name] - second[name]) for name in first) > 0


def test_the_folder_of_a_run_is_not_used_for_its_repetition(run: Path) -> None:
    before = (run / "model.safetensors").read_bytes()
    with pytest.raises(RequestError, match="already contains a run"):
        repeat_run(recipe_of(run), run)
    assert (run / "model.safetensors").read_bytes() == before
    assert not (run / REPEATED_NAME).exists()


def test_another_version_and_a_changed_sheet_are_named(run: Path, phantoms: Path, tmp_path: Path) -> None:
    versions = read_header(run / "model.safetensors").versions
    change_header(run / "model.safetensors", versions=versions | {"torch": "1.0.0", "lost": "3"})
    elsewhere = Path(shutil.copytree(phantoms, tmp_path / "elsewhere"))
    sheet = elsewhere / "valid.csv"
    before = hashlib.sha256(sheet.read_bytes()).hexdigest()
    sheet.write_bytes(b"".join(sheet.read_bytes().splitlines(keepends=True)[:-1]))
    (elsewhere / "train.csv").unlink()
    recipe = recipe_of(run, elsewhere)
    found = differences(recipe)
    assert set(found) == {"torch", "lost", "valid sheet", "train sheet"}
    assert (found["torch"].recorded, found["torch"].here) == ("1.0.0", versions["torch"])
    assert found["lost"].here == "not installed"
    now = hashlib.sha256(sheet.read_bytes()).hexdigest()
    assert (found["valid sheet"].recorded, found["valid sheet"].here) == (f"sha256 {before}", f"sha256 {now}")
    assert "train.csv" in found["train sheet"].here
    assert recipe.steps[0].settings["data.root"] == str(elsewhere)
    gone = differences(recipe_of(run, tmp_path / "nowhere"))
    assert "nowhere" in gone["train sheet"].here


def test_a_sheet_that_only_tune_used_is_compared_too(run: Path) -> None:
    header = read_header(run / "model.safetensors")
    assert header.tuning is not None
    change_header(run / "model.safetensors", tuning=header.tuning.model_dump(mode="json") | {"sheet_sha256": "other"})
    found = differences(recipe_of(run))
    assert found["valid sheet of cxr tune"].here == f"sha256 {header.data['valid'].sheet_sha256}"


def test_another_machine_is_named(run: Path) -> None:
    def elsewhere(about: dict[str, object]) -> dict[str, object]:
        return about | {"device": "cuda", "precision": "bf16", "threads": 7, "processor": "Z80", "python": "3.11.0"}

    own = json.loads((run / "model.json").read_text())
    change_json(run / "model.json", elsewhere)
    change_settings(run, "runtime", precision="fp32")
    recipe = recipe_of(run)
    found = differences(recipe)
    assert (found["device"].recorded, found["device"].here) == ("cuda", "cpu")
    assert (found["precision"].recorded, found["precision"].here) == ("bf16", "fp32")
    assert (found["threads"].recorded, found["threads"].here) == ("7", "1")
    assert (found["processor"].recorded, found["processor"].here) == ("Z80", own["processor"])
    assert recipe.automatic == {}  # precision was given, and a GPU's result does not depend on threads
    (run / "model.json").write_text("[")
    assert recipe_of(run).machine == {}


def test_initial_weights_that_are_gone_or_changed_are_named(run: Path, tmp_path: Path) -> None:
    start = tmp_path / "start.safetensors"
    start.write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    change_settings(run, "train", init=str(start))
    change_json(run / "model.json", lambda about: about | {"init_sha256": digest})
    recipe = recipe_of(run)
    assert recipe.init_sha256 == digest
    assert recipe.differences == ()
    start.write_bytes(b"others")
    changed = differences(recipe_of(run))[f"initial weights {start}"]
    assert changed.here == f"sha256 {hashlib.sha256(b'others').hexdigest()}"
    start.unlink()
    for recorded in (digest, None):
        change_json(run / "model.json", lambda about, sha=recorded: about | {"init_sha256": sha})  # type: ignore[misc]
        assert "No such file" in differences(recipe_of(run))[f"initial weights {start}"].here


@pytest.mark.parametrize(("patience", "epochs"), [(0, 2), (1, 9)])
def test_a_run_that_was_stopped_is_followed_as_far_as_it_went(run: Path, patience: int, epochs: int) -> None:
    """Early stopping by `patience` needs no note: it will happen again."""
    change_settings(run, "train", epochs=9, patience=patience)
    change_header(run / "model.safetensors", metrics={"epoch": 1})
    recipe = recipe_of(run)
    assert recipe.steps[0].settings["train.epochs"] == epochs
    assert bool(recipe.notes) is (epochs == 2)


def test_what_is_not_a_run_is_refused_with_the_folder_that_is_needed(run: Path, bundle: Path, tmp_path: Path) -> None:
    assert run_folder(run / "model.safetensors") == run
    for given, message in [
        (Path("hf:owner/name"), "hf:owner/name is a model without the folder of its run"),
        (bundle, "without the folder of its run, which was named run"),
        (tmp_path / "none", "does not exist"),
    ]:
        with pytest.raises(RequestError, match=message) as caught:
            recipe_of(given)
        assert "settings.yaml" in caught.value.advice
    change_header(bundle, training={"imported_from_sha256": "0"})
    with pytest.raises(RequestError, match="was imported"):
        recipe_of(bundle)
    (run / "model.safetensors").unlink()
    with pytest.raises(ModelError):
        recipe_of(run)
