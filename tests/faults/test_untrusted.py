"""Untrusted models, exports, settings files and sheets can do no harm."""

import json
import os
import random
from pathlib import Path

import pytest
import torch

from conftest import Call
from cxrtool.choices import ExportFormat, Precision
from cxrtool.data.preprocessing import Preprocessing
from cxrtool.engines.export_record import ExportRecord, export_name, find_export, record_path
from cxrtool.errors import ModelError
from cxrtool.files import sha256_of_file
from cxrtool.findings import FINDINGS
from cxrtool.model.bundle import BUNDLE_NAME, open_bundle, read_header
from tests_support import bundle_parts, change_header, write_parts


def test_each_of_a_hundred_flipped_bytes_is_refused(bundle: Path) -> None:
    """60 bytes anywhere in the file, which is mostly weights, and 40 in the header."""
    size = bundle.stat().st_size
    start = size - len(bundle_parts(bundle)[1])
    rng = random.Random(0)
    places = [rng.randrange(size) for _ in range(60)] + [rng.randrange(start) for _ in range(40)]
    refused = 0
    with bundle.open("rb+") as file:
        for place in places:
            file.seek(place)
            (before,) = file.read(1)
            file.seek(place)
            file.write(bytes([before ^ (1 << rng.randrange(8))]))
            file.flush()
            try:
                open_bundle(bundle)
            except ModelError:
                refused += 1
            file.seek(place)
            file.write(bytes([before]))
            file.flush()
    open_bundle(bundle)
    assert refused == 100


def test_any_changed_byte_of_the_header_is_refused(bundle: Path) -> None:
    """For example a digit of a threshold, which is still a valid number."""
    header, data = bundle_parts(bundle)
    text = header["__metadata__"]["cxrtool"]
    digit = text.index("0.", text.index('"thresholds"')) + 2
    header["__metadata__"]["cxrtool"] = text[:digit] + str((int(text[digit]) + 1) % 10) + text[digit + 1 :]
    write_parts(bundle, header, data)
    with pytest.raises(ModelError, match="header does not match its digest"):
        read_header(bundle)
    del header["__metadata__"]["cxrtool-sha256"]
    write_parts(bundle, header, data)
    with pytest.raises(ModelError, match="header does not match its digest"):
        read_header(bundle)


def test_a_bundle_of_version_1_is_still_read(bundle: Path) -> None:
    change_header(bundle, format_version=1)
    header, data = bundle_parts(bundle)
    del header["__metadata__"]["cxrtool-sha256"]
    write_parts(bundle, header, data)
    assert read_header(bundle).format_version == 1


HOSTILE_HEADERS: dict[str, dict[str, object]] = {
    "a grid without end": {
        "tuning": {"criterion": "f1", "step": 1e-12, "split": "valid", "level": "study", "rows": 1, "sheet_sha256": ""}
    },
    "an image without end": {"preprocessing": {"image_size": 10**9}},
    "a mean of infinity": {
        "preprocessing": Preprocessing(32).to_dict() | {"mean": [1e999, 0, 0]},
    },
    "a mean of 400 digits": {
        "preprocessing": Preprocessing(32).to_dict() | {"mean": [10**400, 0, 0]},
    },
    "a threshold of NaN": {"thresholds": dict.fromkeys(FINDINGS, float("nan"))},
    "version 0": {"format_version": 0},
    "a key of its own": {"file": "/etc/passwd"},
}


@pytest.mark.parametrize("case", HOSTILE_HEADERS)
def test_a_hostile_header_is_refused(bundle: Path, case: str) -> None:
    change_header(bundle, **HOSTILE_HEADERS[case])
    with pytest.raises(ModelError) as caught:
        read_header(bundle)
    assert "\n" not in caught.value.message


def test_headers_with_deep_nesting_or_huge_numbers_are_refused(bundle: Path) -> None:
    header, data = bundle_parts(bundle)
    for text in ("[" * 200_000, '{"format_version": ' + "9" * 10_000 + "}"):
        header["__metadata__"]["cxrtool"] = text
        write_parts(bundle, header, data)
        with pytest.raises(ModelError, match="not JSON"):
            read_header(bundle)


def test_a_pipe_as_a_bundle_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / BUNDLE_NAME)
    with pytest.raises(ModelError, match="is not a regular file"):
        read_header(tmp_path / BUNDLE_NAME)


def test_weights_of_another_type_or_a_negative_variance_are_refused(bundle: Path) -> None:
    from cxrtool.model.bundle import save_bundle

    opened = open_bundle(bundle)
    weights, header = opened.network.state_dict(), opened.header
    save_bundle(bundle, weights | {"classifier.bias": weights["classifier.bias"].double()}, header)
    with pytest.raises(ModelError, match="not of type F32"):
        open_bundle(bundle)
    variance = "features.norm0.running_var"
    save_bundle(bundle, weights | {variance: torch.full_like(weights[variance], -1)}, header)
    with pytest.raises(ModelError, match="negative variance"):
        open_bundle(bundle)


def test_invalid_metrics_in_a_header_are_shown_as_none(bundle: Path, call: Call) -> None:
    for metrics in ({}, {"valid": 3}, {"valid": {"labels": []}}, {"epoch": "x", "valid": {"labels": {"Edema": {}}}}):
        change_header(bundle, metrics=metrics, run="\x1b[2J[/red]<script>")
        done = call("info", bundle)
        assert done.code == 0, done.stderr
        assert "\x1b" not in done.stdout


def record_of(bundle: Path, files: dict[str, str]) -> str:
    header = read_header(bundle)
    content = {
        "format": "onnx",
        "precision": "fp32",
        "files": files,
        "weights_sha256": header.weights_sha256,
        "findings": FINDINGS,
        "thresholds": None,
        "calibration": None,
        "image_size": 32,
        "preprocessing": header.preprocessing,
        "input": {"shape": ["batch", 1, 32, 32]},
        "check": {"largest_difference": 0, "allowed": 1, "images": 8},
        "int8": None,
        "versions": {},
        "created": "",
        "intended_use": "",
    }
    return json.dumps(content)


def test_the_record_of_an_export_cannot_name_files_outside_its_folder(bundle: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    digest = sha256_of_file(secret)
    folder = tmp_path / "export"
    (folder / "below").mkdir(parents=True)
    (folder / "below" / "x").write_text("secret")
    name = export_name(ExportFormat.ONNX, Precision.FP32)
    (folder / name).write_text("secret")
    (folder / "link").symlink_to(secret)
    os.mkfifo(folder / "pipe")
    record = record_path(folder / name)
    opened = open_bundle(bundle)

    def found(**files: str) -> bool:
        record.write_text(record_of(bundle, {name: digest} | files))
        return find_export(opened, ExportFormat.ONNX, Precision.FP32) is not None

    assert found()
    for other in ("../secret", str(secret), "below/x", "..", ".", "", "link", "pipe", "below\\x", "a\0b", "gone"):
        assert not found(**{other: digest}), other
    (folder / name).unlink()
    (folder / name).symlink_to(secret)
    assert not found()
    record.unlink()
    os.mkfifo(record)
    assert find_export(opened, ExportFormat.ONNX, Precision.FP32) is None


def test_a_record_accepts_only_file_names(bundle: Path) -> None:
    with pytest.raises(ValueError, match="is not a file name"):
        ExportRecord.model_validate(json.loads(record_of(bundle, {"../x": ""})))


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.mkdir [ran]",
        "model: !!python/object/apply:os.mkdir [ran]",
        "train: !!python/name:os.mkdir",
        "a: &a [*a]",
    ],
)
def test_a_settings_file_cannot_run_code(tmp_path: Path, call: Call, text: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    done = call("config", "--config", "c.yaml")
    assert done.code == 2
    assert done.stderr.startswith("error: ")
    assert not (tmp_path / "ran").exists()
