import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import yaml

from cxrtool.errors import RequestError
from cxrtool.processors import automatic_workers
from cxrtool.resolved_settings import load_settings
from setting_names import KEYS


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_command_line_overrides_environment_overrides_file_overrides_default(tmp_path: Path) -> None:
    config = write(tmp_path / "c.yaml", "train: {epochs: 2, lr: 0.002, seed: 9}\n")
    environment = {"CXR_TRAIN__EPOCHS": "3", "CXR_TRAIN__LR": "0.003", "CXR_MODEL": "m"}
    resolved = load_settings({"train.epochs": 4, "train.seed": None}, config, environment)
    train = resolved.settings.train
    assert (train.epochs, train.lr, train.seed, train.batch_size) == (4, 0.003, 9, 32)
    assert resolved.settings.model == Path("m")
    sources = {key: source for key, _, source in resolved.rows()}
    assert sources["train.epochs"] == "argument"
    assert sources["train.lr"] == "environment CXR_TRAIN__LR"
    assert sources["train.seed"] == str(config)
    assert sources["train.batch_size"] == "default"


def test_training_defaults_are_those_of_the_original_scripts() -> None:
    train = load_settings(environ={}).settings.train
    assert (train.image_size, train.batch_size, train.epochs, train.lr) == (320, 32, 10, 1e-4)
    assert (train.policy, train.init, train.optimizer, train.pos_weight_clip) == ("u-ignore", "imagenet", "adam", 8)


def test_reading_threads_follow_the_processors_that_the_process_has() -> None:
    assert load_settings(environ={}).settings.runtime.workers == "auto"
    script = "from cxrtool.settings import RuntimeSettings as R; print(R().reading_threads)"
    before, counts = os.sched_getaffinity(0), []
    for processors in ({min(before)}, before):
        done = subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            check=True,
            preexec_fn=partial(os.sched_setaffinity, 0, processors),
        )
        counts.append(int(done.stdout))
    assert counts == [2, min(max(len(before), 2), 16)]
    assert [automatic_workers(count) for count in (1, 2, 3, 12, 16, 64)] == [2, 2, 3, 12, 16, 16]


@pytest.mark.parametrize(
    ("environment", "config"),
    [({"CXR_RUNTIME__WORKERS": "5"}, ""), ({}, "runtime: {workers: 5}"), ({}, "runtime: {workers: '5'}")],
)
def test_a_given_number_of_workers_is_used(tmp_path: Path, environment: dict[str, str], config: str) -> None:
    runtime = load_settings(config=write(tmp_path / "c.yaml", config), environ=environment).settings.runtime
    assert (runtime.workers, runtime.reading_threads) == (5, 5)


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ({}, False),
        ({"data.cache": True}, True),
        ({"data.cache_dir": "d"}, True),
        ({"data.cache_dir": "d", "data.cache": False}, False),
    ],
)
def test_a_cache_folder_turns_the_cache_on(given: dict[str, object], used: bool) -> None:
    assert load_settings(given, environ={}).settings.data.uses_cache is used


def test_resolved_settings_can_be_read_back(tmp_path: Path) -> None:
    resolved = load_settings({"train.policy": "u-ones,Edema=u-zeros", "data.root": "d"}, environ={})
    config = write(tmp_path / "settings.yaml", resolved.to_yaml())
    assert load_settings(config=config, environ={}).settings == resolved.settings
    assert yaml.safe_load(config.read_text())["train"]["policy"] == "u-ones,Edema=u-zeros"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train: {lrr: 1}", ["train.lrr", "unknown", "train.lr"]),
        ("trian: {lr: 1}", ["trian", "unknown", "train"]),
        ("train: {lr: -1}", ["train.lr", "-1", "greater than 0"]),
        ("train: {epochs: two}", ["train.epochs", "'two'", "integer"]),
        ("train: {epochs: 2.5}", ["train.epochs", "2.5", "integer"]),
        ("train: {lr: .nan}", ["train.lr", "finite"]),
        ("train: {image_size: 16}", ["train.image_size", "16", "32"]),
        ("train: {policy: u-maybe}", ["train.policy", "u-maybe", "u-ignore"]),
        ("runtime: {workers: 0}", ["runtime.workers", "0", "auto", "256"]),
        ("runtime: {workers: many}", ["runtime.workers", "many", "auto"]),
        ("runtime: {workers: true}", ["runtime.workers", "True", "auto"]),
        ("runtime: {workers: 2.5}", ["runtime.workers", "2.5", "auto"]),
        ("data: {views: top}", ["data.views", "top", "frontal"]),
        ("tune: {criterion: recall}", ["tune", "target"]),
        ("train: 3", ["train"]),
        ("- a", ["not a mapping of keys"]),
        ("a: [", ["not valid YAML"]),
        ("train: {lr: 1, lr: 2}", ["not valid YAML", "'lr' stands twice"]),
        ("train: {lr: 1}\ntrain: {epochs: 2}", ["'train' stands twice"]),
        ("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]", ["alias of more than one value"]),
        ("train: &a {lr: *a}", ["alias of more than one value"]),
        ("train: &a {lr: 1}\ntune: {<<: *a}", ["alias of more than one value"]),
        ("[" * 30_000, ["nested too deeply"]),
        ("a: " + "x" * 70_000, ["more than 65,536 bytes"]),
        ("runtime: {read_timeout: 1.0e+300}", ["runtime.read_timeout", "86400"]),
    ],
)
def test_a_wrong_file_is_refused_by_key_and_rule(tmp_path: Path, text: str, words: list[str]) -> None:
    config = write(tmp_path / "c.yaml", text)
    with pytest.raises(RequestError) as caught:
        load_settings(config=config, environ={})
    text_shown = f"{caught.value.message} {caught.value.advice}"
    assert "\n" not in text_shown
    for word in words:
        assert word in text_shown


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("CXR_TRAIN__LRR", "1", "train.lr"),
        ("CXR_TRAIN", '{"a":' * 20_000 + "1" + "}" * 20_000, "CXR_TRAIN is nested too deeply"),
        ("CXR_TRAIN", '{"lr": {"a": {"b": 1}}}', "nested too deeply"),
        ("CXR_RUNTIME__READ_TIMEOUT", "1e300", "CXR_RUNTIME__READ_TIMEOUT"),
        ("CXR_TRAIN__LR", "x", "CXR_TRAIN__LR"),
    ],
)
def test_a_wrong_variable_is_refused_by_name(name: str, value: str, word: str) -> None:
    with pytest.raises(RequestError) as caught:
        load_settings(environ={name: value})
    assert word in f"{caught.value.message} {caught.value.advice}"


def test_variables_of_other_programs_are_ignored(caplog: pytest.LogCaptureFixture) -> None:
    """Kubernetes sets the first four where services are called cxr and cxr-eval."""
    foreign = ("CXR_SERVICE_HOST", "CXR_PORT_80_TCP_ADDR", "CXR_EVAL_SERVICE_HOST", "CXR_PORT", "CXR_X__Y__Z")
    environment = {**dict.fromkeys(foreign, "tcp://10.0.0.1:80"), "CXR_TRAIN__EPOCHS": "3"}
    resolved = load_settings(environ=environment)
    assert {key for key, _, source in resolved.rows() if source != "default"} == {"train.epochs"}
    assert caplog.text == ""
    load_settings(environ={"CXR_TRIAN__LR": "1"})
    assert "CXR_TRIAN__LR names no setting and is ignored; did you mean CXR_TRAIN__LR?" in caplog.text


def test_an_alias_of_a_single_value_is_read(tmp_path: Path) -> None:
    config = write(tmp_path / "c.yaml", "train: {seed: &n 7}\neval: {draw_seed: *n}")
    settings = load_settings(config=config, environ={}).settings
    assert (settings.train.seed, settings.eval.draw_seed) == (7, 7)


def test_the_rows_are_all_settings() -> None:
    assert sorted(key for key, _, _ in load_settings(environ={}).rows()) == sorted(KEYS)


@pytest.mark.parametrize("key", KEYS)
def test_every_setting_is_read_from_its_variable(key: str) -> None:
    """A word is valid for some settings and refused for others; the error names the variable."""
    variable = f"CXR_{key.upper().replace('.', '__')}"
    try:
        resolved = load_settings(environ={variable: "word"})
    except RequestError as error:
        named = error.message
    else:
        (named,) = [source for name, _, source in resolved.rows() if name == key]
    assert variable in named


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="cannot read settings file"):
        load_settings(config=tmp_path / "none.yaml", environ={})


def test_where_overrides_come_from_is_said() -> None:
    with pytest.raises(RequestError, match=r"train.epochs = 0 \(command line\)"):
        load_settings({"train.epochs": 0}, environ={}, origin="command line")
    with pytest.raises(RequestError, match=r"train.epochs = 0 \(argument\)"):
        load_settings({"train.epochs": 0}, environ={})
