"""Processes that write or read one bundle at the same time lose nothing and mix nothing."""

import hashlib
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from cxrtool import Classifier
from cxrtool.errors import ModelError
from cxrtool.findings import FINDINGS
from cxrtool.model import bundle as bundles
from cxrtool.model.bundle import open_bundle, read_header, save_bundle
from tests_support import EXACT, bundle_parts
from tests_support import change_header as forge_header
from warm import Warm, until

SLOW = """
import pathlib, time
from cxrtool.model import bundle
encoded = bundle._encoded
def slow(*arguments):
    pathlib.Path("writing").touch()
    content = encoded(*arguments)
    time.sleep(0.7)
    return content
bundle._encoded = slow
"""
"""Makes a process slow between reading the header that it changes and writing it."""


def command(name: str, run: Path) -> list[object]:
    return [name, "--predictions", run / "tune_valid" / "predictions.csv", "--model", run]


def with_another_bias(bundle: Path, copy: Path) -> bytes:
    """Write a copy of a bundle with other weights, as of a later epoch; return its bytes."""
    opened = open_bundle(bundle)
    weights = opened.network.state_dict()
    save_bundle(copy, weights | {"classifier.bias": weights["classifier.bias"] + 1}, opened.header)
    return copy.read_bytes()


def test_tune_and_calibrate_at_the_same_time_are_both_kept(run: Path, warm: Warm, tmp_path: Path) -> None:
    model = run / "model.safetensors"
    for _ in range(2):
        forge_header(model, thresholds=None, tuning=None, calibration=None)
        numbers = bundle_parts(model)[1]
        children = [warm.start(*command(name, run), cwd=tmp_path, patch=SLOW) for name in ("tune", "calibrate")]
        for child in children:
            ended = child.wait()
            assert ended.code == 0, ended.stderr
        header = read_header(model)
        assert header.thresholds is not None
        assert header.tuning is not None
        assert header.calibration is not None
        assert bundle_parts(model)[1] == numbers


def test_weights_that_training_saves_beside_tune_stay(run: Path, warm: Warm, tmp_path: Path) -> None:
    """Training waits for tune, whose old weights are then replaced."""
    model = run / "model.safetensors"
    with_another_bias(model, tmp_path / "new.safetensors")
    new = open_bundle(tmp_path / "new.safetensors")
    child = warm.start(*command("tune", run), cwd=tmp_path, patch=SLOW)
    until(lambda: (tmp_path / "writing").exists())
    save_bundle(model, new.network.state_dict(), new.header)
    assert child.wait().code == 0
    assert read_header(model).weights_sha256 == new.header.weights_sha256
    assert torch.equal(open_bundle(model).network.classifier.bias, new.network.classifier.bias)


def test_a_model_that_a_program_without_locks_puts_there_stays(run: Path, warm: Warm, tmp_path: Path) -> None:
    model = run / "model.safetensors"
    new = with_another_bias(model, tmp_path / "new.safetensors")
    child = warm.start(*command("tune", run), cwd=tmp_path, patch=SLOW)
    until(lambda: (tmp_path / "writing").exists())
    (tmp_path / "new.safetensors").replace(model)
    ended = child.wait()
    assert ended.code != 0
    assert "was replaced by another model while in use" in ended.stderr
    assert model.read_bytes() == new
    assert not list(run.glob(".*.partial"))


def test_a_header_that_a_program_without_locks_changes_is_changed_further(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = open_bundle(bundle)
    shutil.copy(bundle, tmp_path / "other")
    forge_header(tmp_path / "other", run="of the other program")
    encoded = bundles._encoded

    def meanwhile(*arguments: object) -> object:
        if (tmp_path / "other").exists():
            (tmp_path / "other").replace(bundle)
        return encoded(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(bundles, "_encoded", meanwhile)
    bundles.change_header(opened, thresholds=dict.fromkeys(FINDINGS, 0.25))
    header = read_header(bundle)
    assert (header.run, header.thresholds) == ("of the other program", dict.fromkeys(FINDINGS, 0.25))


SWAP = """
import os, shutil, sys, time
one, two, path = sys.argv[1:]
while True:
    for source in (one, two):
        shutil.copy(source, path + ".new")
        os.replace(path + ".new", path)
        time.sleep(0.01)
"""


@contextmanager
def swapping(one: Path, two: Path, path: Path) -> Iterator[None]:
    """Let another process replace `path` by two bundles in turn."""
    process = subprocess.Popen([sys.executable, "-c", SWAP, one, two, path])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def test_a_bundle_loaded_while_it_is_replaced_is_one_of_the_two(bundle: Path, tmp_path: Path) -> None:
    one, two, path = (tmp_path / f"{name}.safetensors" for name in ("one", "two", "path"))
    shutil.copy(bundle, one)
    forge_header(one, thresholds=dict.fromkeys(FINDINGS, 0.2), calibration=None)
    with_another_bias(one, two)
    forge_header(two, thresholds=dict.fromkeys(FINDINGS, 0.8))
    shutil.copy(one, path)
    sha256_of = {hashlib.sha256(file.read_bytes()).hexdigest(): file for file in (one, two)}
    bias_of = {file: open_bundle(file).network.classifier.bias for file in (one, two)}
    seen = set()
    with swapping(one, two, path):
        for _ in range(12):
            classifier = Classifier.load(path, settings=EXACT)
            file = sha256_of[classifier.sha256]
            assert set(classifier.thresholds.values()) == {0.2 if file == one else 0.8}
            assert torch.equal(classifier.network.classifier.bias, bias_of[file])
            seen.add(file)
    assert seen == {one, two}


COPY = """
import sys, time
source, path = sys.argv[1:]
content = open(source, "rb").read()
with open(path, "wb", buffering=0) as file:
    for start in range(0, len(content), len(content) // 40):
        file.write(content[start : start + len(content) // 40])
        time.sleep(0.02)
"""


def test_a_bundle_is_read_again_after_the_copy_onto_it(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = bundle.with_name("source")
    shutil.copy(bundle, source)
    size = bundle.stat().st_size
    read, sizes = bundles._read_bundle, []

    def slowly(path: Path) -> bundles.Bundle:
        sizes.append(path.stat().st_size)
        time.sleep(0.05)  # longer than between two writes
        return read(path)

    monkeypatch.setattr(bundles, "_read_bundle", slowly)
    copy = subprocess.Popen([sys.executable, "-c", COPY, source, bundle])
    until(lambda: 0 < bundle.stat().st_size < size)
    opened = open_bundle(bundle)
    assert copy.wait() == 0
    assert opened.sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
    assert sizes[0] < sizes[1] == size


def test_a_damaged_bundle_that_does_not_change_is_read_once(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle.write_bytes(bundle.read_bytes()[:-1])
    read, times = bundles._read_bundle, []
    monkeypatch.setattr(bundles, "_read_bundle", lambda path: times.append(path) or read(path))
    with pytest.raises(ModelError, match="incomplete or damaged"):
        open_bundle(bundle)
    assert times == [bundle]
