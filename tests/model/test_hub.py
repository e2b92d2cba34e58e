"""Models of the Hugging Face hub, in a cache of the hub's layout, without a network."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from conftest import Cxr
from cxrtool.errors import RequestError
from cxrtool.files import sha256_of_file
from cxrtool.model.hub import fetch

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def home(run_folder: Path, tmp_path: Path) -> Path:
    """HF_HOME with the model of `run_folder` as team/chest, branch main."""
    repository = tmp_path / "hf" / "hub" / "models--team--chest"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    shutil.copy(run_folder / "model.safetensors", snapshot / "model.safetensors")
    return tmp_path / "hf"


def test_a_model_in_the_cache_predicts_and_starts_a_training_without_a_network(
    cxr: Cxr, phantoms: Path, run_folder: Path, home: Path, tmp_path: Path
) -> None:
    image = min((phantoms / "test").rglob("*frontal.jpg"))
    for name in ("hf:team/chest", f"hf:team/chest@{COMMIT}"):
        done = cxr("predict", image, "--model", name, "--json", HF_HOME=str(home), HF_HUB_OFFLINE="1")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["model"]["sha256"] == sha256_of_file(run_folder / "model.safetensors")
    small = ["--image-size", 32, "--epochs", 1, "--batch-size", 32, "--out", "run"]
    done = cxr("train", "--data", phantoms, "--init", "hf:team/chest", *small, HF_HOME=str(home), HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr
    facts = json.loads((tmp_path / "run" / "model.json").read_text())
    assert facts["init"] == "hf:team/chest"
    assert facts["init_sha256"] == sha256_of_file(run_folder / "model.safetensors")
    resumed = cxr("train", "--resume", "run", "--epochs", 2, HF_HOME=str(tmp_path / "empty"), HF_HUB_OFFLINE="1")
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads((tmp_path / "run" / "model.json").read_text())["init_sha256"] == facts["init_sha256"]


def test_without_a_network_one_line_says_so(cxr: Cxr, phantoms: Path, tmp_path: Path) -> None:
    image = min((phantoms / "test").rglob("*frontal.jpg"))
    done = cxr("predict", image, "--model", "hf:team/other", HF_HOME=str(tmp_path), HF_HUB_OFFLINE="1")
    assert done.returncode == 2
    error, advice = done.stderr.splitlines()[-2:]
    assert error.startswith("error: hf:team/other cannot be fetched")
    assert "model.safetensors" in advice


@pytest.mark.parametrize("name", ["hf:", "hf:one", "hf:a/b/c", "hf:a/b@", "hf:../x", "hf:a/b c"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(RequestError, match="names no repository"):
        fetch(name)


def test_push_writes_a_repository_with_the_figures(cxr: Cxr, phantoms: Path, run_folder: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(run_folder, tmp_path / "run"))
    evaluated = cxr("eval", "--data", phantoms, "--model", run, "--draws", 20, "--json")
    done = cxr("push", "--model", run, "--data", phantoms, "--folder", "repository")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "repository"
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert sha256_of_file(folder / "model.safetensors") == sha256_of_file(run / "model.safetensors")
    _, front, card = (folder / "README.md").read_text().split("---\n", 2)
    (model,) = yaml.safe_load(front)["model-index"]
    values = {one["name"]: one["value"] for one in model["results"][0]["metrics"]}
    assert values["AUROC, mean"] == pytest.approx(json.loads(evaluated.stdout)["mean"]["auroc"], abs=5e-5)
    assert "# Model card" in card
    assert str(tmp_path) not in (folder / "README.md").read_text()
    assert json.loads((folder / "config.json").read_text())["id2label"]["0"] == "Atelectasis"
    assert cxr("push", "--model", run, "--data", phantoms, "--folder", "repository").returncode == 2
    assert cxr("push", "--model", run).returncode == 2
