"""``cxr reproduce``: its script is run by a shell, and its sentences name what differs."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from conftest import Call, Cxr
from cxrtool.model.bundle import read_header
from tests_support import change_header


def test_the_printed_script_makes_the_same_weights(cxr: Cxr, run: Path, tmp_path: Path) -> None:
    """A shell runs it as it is; only pip is a stand-in that keeps its arguments."""
    done = cxr("reproduce", run)
    assert done.returncode == 0, done.stderr
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, line in {"pip": 'echo "$@" > pip.txt', "cxr": f'{shlex.quote(sys.executable)} -m cxrtool "$@"'}.items():
        (tools / name).write_text(f"#!/bin/sh\n{line}\n")
        (tools / name).chmod(0o755)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CXR_")}
    path = f"{tools}:{os.environ['PATH']}"
    made = subprocess.run(
        ["sh", "-s"],
        input=done.stdout,
        cwd=tmp_path,
        env=clean | {"PATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert made.returncode == 0, made.stderr
    header, again = (read_header(tmp_path / name / "model.safetensors") for name in ("run", "run-again"))
    assert again.weights_sha256 == header.weights_sha256
    assert again.thresholds == header.thresholds
    assert f'"weights_sha256": "{header.weights_sha256}"' in made.stdout
    asked = (tmp_path / "pip.txt").read_text().split()
    assert asked == ["install", *(f"{name}=={number}" for name, number in header.versions.items())]


def test_differences_are_named_on_stderr_and_digests_in_the_script(call: Call, run: Path) -> None:
    done = call("reproduce", run)
    assert done.code == 0
    assert "nothing that the run records differs here" in done.stderr
    header = read_header(run / "model.safetensors")
    for digest in (header.weights_sha256, *(one.sheet_sha256 for one in header.data.values())):
        assert digest in done.stdout
    change_header(run / "model.safetensors", versions={"torch": "1.0.0"})
    done = call("reproduce", run, "--data", "nowhere")
    assert done.code == 0
    assert "torch: 1.0.0 in the run," in done.stderr
    assert "train sheet: sha256" in done.stderr
    assert "--data nowhere" in done.stdout


def test_values_of_a_stranger_stay_values(call: Call, run: Path) -> None:
    """Versions and settings come from files, so that none may end a comment or start a command."""
    hostile = "1\n; touch spoilt #"
    change_header(run / "model.safetensors", versions={"torch": "2.6.0+cpu", "numpy": hostile, "pillow": "unknown"})
    content = yaml.safe_load((run / "settings.yaml").read_text())
    content["train"]["init"] = "a'b $(touch spoilt)\ntouch spoilt"
    content["train"]["augment"] = False
    content["runtime"]["read_timeout"] = 30.0
    (run / "settings.yaml").write_text(yaml.safe_dump(content))
    script = call("reproduce", run).stdout
    assert "--extra-index-url https://download.pytorch.org/whl/cpu torch==2.6.0+cpu" in script
    assert "# versions that are not known: pillow" in script
    assert "pillow==" not in script
    tools = 'pip() { :; }; cxr() { printf \'%s\\n\' "$CXR_RUNTIME__READ_TIMEOUT" "$@"; }\n'
    ran = subprocess.run(["sh", "-s"], input=tools + script, cwd=run, capture_output=True, text=True, check=False)
    assert not list(run.parent.rglob("spoilt"))
    assert f"--init\n{content['train']['init']}\n" in ran.stdout
    assert ran.stdout.startswith("30.0\ntrain\n")
    document = call("reproduce", run, "--json").json
    (train,) = [line for line in document["commands"] if "cxr train" in line]
    words = shlex.split(train.replace("\\\n", ""))
    assert words[:3] == ["CXR_RUNTIME__READ_TIMEOUT=30.0", "cxr", "train"]
    assert words[words.index("--init") + 1] == content["train"]["init"]
    assert "--no-augment" in words
    assert document["script"] == script


def test_run_reports_the_comparison(call: Call, run: Path, tmp_path: Path) -> None:
    done = call("reproduce", run, "--run", "again", "--json")
    assert done.code == 0, done.stderr
    repeated = done.json["repeated"]
    assert repeated["same_weights"] is True
    assert repeated["largest"] == {"train_loss": 0, "valid_loss": 0, "valid_auroc": 0}
    history = run / "history.json"
    rows = json.loads(history.read_text())
    rows[1]["valid_loss"] += 0.25
    history.write_text(json.dumps(rows))
    shown = call("reproduce", run, "--run", "again")
    assert "weights: the same to the bit" in shown.stdout
    assert "thresholds: the same" in shown.stdout
    assert "#!/bin/sh" not in shown.stdout
    change_header(run / "model.safetensors", weights_sha256="0" * 64)
    kept = tmp_path / "again" / "reproduced.json"
    kept.write_text(json.dumps(json.loads(kept.read_text()) | {"weights_sha256": "0" * 64}))
    shown = call("reproduce", run, "--run", "again")
    assert "weights: not the same to the bit; largest difference of an epoch:" in shown.stdout
    assert "valid loss 2.5e-01" in shown.stdout


@pytest.mark.parametrize("given", ["hf:owner/name", "model.safetensors", "nowhere"])
def test_what_is_not_a_run_is_one_error(call: Call, bundle: Path, given: str) -> None:
    done = call("reproduce", given)
    assert done.code == 2
    assert done.stderr.count("error:") == 1
    assert "Give the folder that cxr train wrote" in done.stderr
