"""What every command keeps: help with examples, exit codes, one line of error and one of advice."""

import fcntl
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer

from conftest import Call, Cxr
from cxrtool.cli.app import app
from cxrtool.cli.options import settings_options

PROMISED = {
    *("demo", "phantom", "check-data", "train", "eval", "tune", "predict", "explain", "calibrate", "errors", "compare"),
    *("localize", "report", "cache", "export", "import", "info", "config", "bench"),
}
"""Names that users and scripts rely on: none may go."""
COMMANDS = tuple(typer.main.get_command(app).commands)


def test_every_promised_command_is_there() -> None:
    assert set(COMMANDS) >= PROMISED
    assert len(COMMANDS) == len(set(COMMANDS))


@pytest.mark.parametrize("command", COMMANDS)
def test_no_two_options_of_a_command_have_the_same_name(command: str) -> None:
    parameters = typer.main.get_command(app).commands[command].params
    names = [name for one in parameters for name in (*one.opts, *one.secondary_opts) if name.startswith("-")]
    assert len(names) == len(set(names))


def test_two_settings_with_the_same_option_are_refused() -> None:
    with pytest.raises(ValueError, match="--batch-size"):
        settings_options("train.batch_size", "runtime.batch_size")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_helps_with_an_example(command: str, call: Call) -> None:
    done = call(command, "--help")
    assert done.code == 0
    assert f"cxr {command}" in done.stdout.split("Usage", 1)[1].split("\n", 2)[2]  # below the usage line
    assert not done.stderr
    assert "Traceback" not in done.stdout


def test_the_help_names_every_command_and_what_this_is_not(call: Call) -> None:
    done = call("--help")
    assert done.code == 0
    listed = set(re.findall(r"^  ([a-z][a-z-]+)\s", done.stdout, re.MULTILINE))
    assert listed >= set(COMMANDS)
    assert "not a medical device" in done.stdout


def test_version(call: Call) -> None:
    from importlib.metadata import version

    assert call("--version").stdout == f"cxr {version('cxrtool')}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict"], "Missing argument"),
        (["predict", "--nonsense", "x.jpg"], "--nonsense"),
        (["nonsense"], "nonsense"),
        (["train"], "no data folder is given"),
        (["train", "--data", "nowhere"], "nowhere"),
        (["train", "--data", "DATA", "--epochs", "0"], "train.epochs"),
        (["train", "--data", "DATA", "--epochs", "many"], "--epochs"),
        (["train", "--data", "DATA", "--policy", "u-maybe"], "u-maybe"),
        (["train", "--data", "DATA", "--policy", "u-ones,Edma=u-ones"], "Edema"),
        (["train", "--data", "DATA", "--init", "nowhere.safetensors"], "nowhere.safetensors"),
        (["train", "--data", "DATA", "--init", "weights.pth"], "weights.pth"),
        (["train", "--data", "DATA", "--config", "nowhere.yaml"], "nowhere.yaml"),
        (["train", "--resume", "nowhere"], "nowhere"),
        (["check-data", "nowhere"], "nowhere"),
        (["eval", "--data", "nowhere", "--model", "MODEL"], "nowhere"),
        (["eval", "--data", "DATA", "--model", "nowhere"], "nowhere"),
        (["eval", "--data", "DATA"], "runs"),
        (["eval", "--data", "DATA", "--model", "MODEL", "--split", "vaild"], "vaild"),
        (["tune", "--data", "DATA", "--model", "MODEL", "--split", "test"], "test"),
        (["tune", "--data", "DATA", "--model", "MODEL", "--criterion", "recall"], "needs a target"),
        (["predict", "x.jpg", "--model", "nowhere"], "nowhere"),
        (["predict", "x.jpg", "--model", "MODEL", "--thresholds", "0.5"], "5 findings"),
        (["predict", "EMPTY", "--model", "MODEL"], "contains no image"),
        (["explain", "x.jpg", "--model", "MODEL", "--label", "Plural Effusion"], "Pleural Effusion"),
        (["phantom", "EMPTY", "--patients", "3"], "--patients"),
        (["info", "nowhere"], "nowhere"),
    ],
)
def test_a_wrong_request_ends_with_2_and_two_lines(
    arguments: list[str], message: str, call: Call, phantoms: Path, run_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "weights.pth").write_bytes(b"not read")
    names = {"DATA": phantoms, "MODEL": run_folder, "EMPTY": tmp_path / "empty"}
    before = sorted(tmp_path.rglob("*"))
    done = call(*(names.get(argument, argument) for argument in arguments))
    assert done.code == 2, done
    error, *advice = done.stderr.splitlines()
    assert error.startswith("error: ")
    assert message in done.stderr
    assert len(advice) == 1
    assert not done.stdout
    assert sorted(tmp_path.rglob("*")) == before, "something was begun"


def test_train_without_the_network_names_the_two_other_starts(
    call: Call, phantoms: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("urllib.request.urlopen", _no_network)
    done = call("train", "--data", phantoms, "--epochs", 1, "--out", "run")
    assert done.code == 2
    assert "--init none" in done.stderr
    assert "--init FILE" in done.stderr
    assert len(done.stderr.splitlines()) == 2
    assert not (tmp_path / "run").exists()


def _no_network(*_arguments: object, **_more: object) -> None:
    import urllib.error

    raise urllib.error.URLError("Name or service not known")


def test_debug_shows_where_an_error_rose(call: Call) -> None:
    assert "Traceback" not in call("info", "nowhere").stderr
    assert "Traceback" in call("info", "nowhere", "--debug").stderr


@pytest.mark.parametrize("read", [0, 100])
@pytest.mark.parametrize("arguments", [["config", "--json"], ["train", "--help"]], ids=" ".join)
def test_a_closed_pipe_ends_a_command_quietly(arguments: list[str], read: int, tmp_path: Path) -> None:
    """Closed before anything is written, or by a reader that takes only the start, as head does."""
    reader, writer = os.pipe()
    held = fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)  # so that the output does not fit
    command = [sys.executable, "-m", "cxrtool", *arguments]
    # Unbuffered, Python forgets the rest of what a pipe takes in part.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    process = subprocess.Popen(command, stdout=writer, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment)
    os.close(writer)
    if read:
        assert len(os.read(reader, read)) == read
    os.close(reader)
    _, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (0, "")
    whole = subprocess.run(command, stdout=subprocess.PIPE, timeout=120, check=True, cwd=tmp_path).stdout
    assert len(whole) > held or not read, "the output fits into the pipe: nothing was tested"


def test_json_is_one_document_though_a_real_process_logs_and_hints(cxr: Cxr, phantoms: Path, run_folder: Path) -> None:
    import json

    done = cxr("eval", "--data", phantoms, "--json", "--out", "figures", CXR_MODEL=str(run_folder))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["split"] == "test"
    assert "model.safetensors (environment CXR_MODEL)" in done.stderr


def test_sigterm_ends_a_predict_with_143(phantoms: Path, run_folder: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "cxrtool", "predict", "-", "--model", str(run_folder), "--batch-size", "1"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    image = next((phantoms / "test").rglob("*frontal.jpg"))
    process.stdin.write(f"{image}\n" * 200)
    process.stdin.flush()
    time.sleep(0.1)
    process.stdout.readline()  # the header: the model is loaded and images are being read
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 143, stderr
    assert "Traceback" not in stderr


def test_config_names_the_source_of_each_setting(call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text("train: {epochs: 3, lr: 0.001}\n")
    monkeypatch.setenv("CXR_TRAIN__EPOCHS", "5")
    rows = call("config", "--config", "my.yaml", "--json").json
    assert rows["train.epochs"] == {"value": 5, "source": "environment CXR_TRAIN__EPOCHS"}
    assert rows["train.lr"] == {"value": 0.001, "source": "my.yaml"}
    assert rows["train.batch_size"] == {"value": 32, "source": "default"}
    (tmp_path / "again.yaml").write_text(call("config", "--config", "my.yaml", "--yaml").stdout)
    again = call("config", "--config", "again.yaml", "--json").json
    assert {key: row["value"] for key, row in again.items()} == {key: row["value"] for key, row in rows.items()}


def test_info_prints_what_a_bundle_says_of_itself(call: Call, run_folder: Path) -> None:
    for_people, document = call("info", run_folder), call("info", run_folder, "--json").json
    assert document["policy"] == "u-ignore"
    assert document["findings"] == ["Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion"]
    assert document["weights_sha256"] in for_people.stdout
    assert "valid, f1" in for_people.stdout
