"""``cxr verify`` on an untouched bundle, a changed one, and one of an older version."""

from pathlib import Path

import pytest

from conftest import Call
from cxrtool.findings import FINDINGS
from cxrtool.model.bundle import open_bundle, read_header, save_bundle
from tests_support import change_header


def shift_first_mean(bundle: Path) -> None:
    """Change a running mean, with a digest of the weights that fits."""
    opened = open_bundle(bundle)
    weights = opened.network.state_dict()
    name = "features.norm5.running_mean"
    save_bundle(bundle, weights | {name: weights[name] - 0.3}, opened.header)


def test_an_untouched_bundle_passes(call: Call, bundle: Path) -> None:
    done = call("verify", bundle, "--precision", "fp32")
    assert done.code == 0, done.stderr
    assert "passed: this machine gives the model's probabilities" in done.stdout
    assert f"match their digest, sha256 {read_header(bundle).weights_sha256}" in done.stdout
    assert all(finding in done.stdout for finding in FINDINGS)


def test_a_changed_running_mean_fails_and_the_findings_are_named(call: Call, bundle: Path) -> None:
    shift_first_mean(bundle)
    done = call("verify", bundle, "--precision", "fp32", "--json")
    assert done.code == 1
    document = done.json
    assert document["passed"] is False
    failed = [finding for finding, one in document["findings"].items() if not one["within"]]
    assert failed
    assert all(document["findings"][finding]["largest_difference"] > 1e-4 for finding in failed)
    shown = call("verify", bundle, "--precision", "fp32")
    assert shown.code == 1
    assert f"does not give the model's probabilities of {', '.join(failed)}" in shown.stdout


def test_another_version_is_named_where_it_fails(call: Call, bundle: Path) -> None:
    shift_first_mean(bundle)
    change_header(bundle, versions={"torch": "1.0.0"})
    assert "the model was made with 1.0.0" in call("verify", bundle).stderr


def test_a_bundle_without_golden_images_says_what_to_do(call: Call, bundle: Path) -> None:
    change_header(bundle, golden=None)
    done = call("verify", bundle)
    assert done.code == 2
    assert f"cxr verify {bundle} --record" in done.stderr
    assert "none (see cxr verify --record)" in call("info", bundle).stdout
    done = call("verify", bundle, "--record")
    assert done.code == 0, done.stderr
    assert "8 golden images" in done.stdout
    assert call("verify", bundle).code == 0
    assert "8, by torch in fp32" in call("info", bundle).stdout
    assert call("verify", bundle, "--record").code == 2


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_an_export_is_verified_too(call: Call, bundle: Path, backend: str) -> None:
    pytest.importorskip("onnxruntime" if backend == "onnx" else backend)
    done = call("verify", bundle, "--backend", backend, "--precision", "fp32", "--json")
    assert done.code == 0, done.stderr
    assert (done.json["backend"], done.json["allowed"]) == (backend, 1e-4)


def test_a_damaged_bundle_is_refused(call: Call, bundle: Path) -> None:
    content = bytearray(bundle.read_bytes())
    content[-5] ^= 1
    bundle.write_bytes(content)
    done = call("verify", bundle)
    assert done.code == 2
    assert "its weights do not match their digest" in done.stderr
