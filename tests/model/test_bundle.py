import hashlib
import json
import pickle
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from bad_inputs import Bomb
from cxrtool.errors import ModelError
from cxrtool.evaluation.calibration import Scaling
from cxrtool.findings import FINDINGS
from cxrtool.model import bundle as bundles
from cxrtool.model.bundle import BUNDLE_NAME, open_bundle, read_header, save_bundle
from tests_support import bundle_parts, change_header


def test_the_header_describes_the_model(run_folder: Path) -> None:
    header = read_header(run_folder / BUNDLE_NAME)
    assert header.findings == FINDINGS
    assert header.image_preprocessing.image_size == 32
    assert header.policy == "u-ignore"
    assert set(header.thresholds or {}) == set(FINDINGS)
    assert header.tuning is not None
    assert header.tuning.split == "valid"
    assert header.training["epochs"] == 2
    assert len(header.data["train"].sheet_sha256) == 64
    history = json.loads((run_folder / "history.json").read_text())
    best = history[header.metrics["epoch"] - 1]
    assert header.metrics["valid"]["mean"]["auroc"] == best["valid_auroc"]
    assert header.versions["torch"]


def test_saved_weights_are_read_back_exactly(bundle: Path, tmp_path: Path) -> None:
    opened = open_bundle(bundle)
    network = opened.network
    save_bundle(tmp_path / "again.safetensors", network.state_dict(), opened.header)
    again = open_bundle(tmp_path / "again.safetensors").network
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
def test_a_pickle_is_refused_without_running_it(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    flag = tmp_path / "ran"
    torch.save({"x": Bomb(flag)}, tmp_path / name)
    with pytest.raises(ModelError, match="not a bundle"):
        open_bundle(tmp_path / name)
    (tmp_path / name).write_bytes(pickle.dumps(Bomb(flag)))
    with pytest.raises(ModelError, match="not a bundle"):
        open_bundle(tmp_path / name)
    assert not flag.exists()


def test_empty_text_and_incomplete_files_are_refused(bundle: Path) -> None:
    content = bundle.read_bytes()
    for broken in (b"", b"1234", b"this is text and no model" * 10, content[:5000], content[:-1]):
        bundle.write_bytes(broken)
        with pytest.raises(ModelError, match="not a bundle"):
            open_bundle(bundle)
    bundle.write_bytes(struct.pack("<Q", 2**40) + b"{}")
    with pytest.raises(ModelError, match="not a bundle"):
        read_header(bundle)


def test_a_flipped_byte_of_the_weights_is_refused(bundle: Path) -> None:
    content = bytearray(bundle.read_bytes())
    for share in (0.3, 0.6, 0.999):
        flipped = bytearray(content)
        flipped[int(len(content) * share)] ^= 1
        bundle.write_bytes(bytes(flipped))
        with pytest.raises(ModelError, match="damaged"):
            open_bundle(bundle)


def test_weights_that_are_not_finite_are_refused(bundle: Path) -> None:
    opened = open_bundle(bundle)
    weights, header = opened.network.state_dict(), opened.header
    weights["classifier.bias"][2] = torch.nan
    save_bundle(bundle, weights, header)
    with pytest.raises(ModelError, match=r"not finite \(classifier.bias\)"):
        open_bundle(bundle)


def test_other_names_and_shapes_are_refused(bundle: Path) -> None:
    opened = open_bundle(bundle)
    weights, header = opened.network.state_dict(), opened.header
    save_bundle(bundle, {f"module.{name}": tensor for name, tensor in weights.items()}, header)
    with pytest.raises(ModelError, match="is not a DenseNet121 of cxrtool"):
        open_bundle(bundle)
    save_bundle(bundle, weights | {"classifier.weight": torch.zeros(14, 1024)}, header)
    with pytest.raises(ModelError, match=r"classifier.weight.*\(14, 1024\)"):
        open_bundle(bundle)


def test_a_newer_version_and_other_findings_are_refused(bundle: Path) -> None:
    change_header(bundle, format_version=99)
    with pytest.raises(ModelError, match="version 99"):
        read_header(bundle)
    change_header(bundle, format_version=1, findings=[*FINDINGS, "Pneumonia"])
    with pytest.raises(ModelError, match="not for the findings of the model"):
        read_header(bundle)
    change_header(bundle, thresholds=None, calibration=None, golden=None)
    with pytest.raises(ModelError, match="has shape"):
        open_bundle(bundle)
    change_header(bundle, findings=FINDINGS, thresholds={"Edema": 0.2})
    with pytest.raises(ModelError, match="thresholds"):
        read_header(bundle)
    change_header(bundle, thresholds=None, preprocessing={"image_size": 9})
    with pytest.raises(ModelError, match="preprocessing"):
        read_header(bundle)


def test_weights_without_a_header_are_refused_with_advice(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2)}, tmp_path / "w.safetensors")
    with pytest.raises(ModelError) as caught:
        read_header(tmp_path / "w.safetensors")
    assert "--init" in caught.value.advice


def stored_calibration(**edema: object) -> dict[str, object]:
    """Return the calibration in the form that bundles have had since version 1."""
    scalings = {finding: {"slope": 1.5, "intercept": -0.25} for finding in FINDINGS}
    return {
        "method": "platt",
        "scalings": scalings | {"Edema": edema},
        "split": "valid",
        "level": "study",
        "rows": 40,
        "sheet_sha256": "0" * 64,
    }


def test_a_calibration_in_the_first_format_is_read_and_written_unchanged(bundle: Path, tmp_path: Path) -> None:
    stored = stored_calibration(slope=0.75, intercept=0)
    change_header(bundle, calibration=stored)
    opened = open_bundle(bundle)
    network, header = opened.network, opened.header
    assert header.scalings == dict.fromkeys(FINDINGS, Scaling(1.5, -0.25)) | {"Edema": Scaling(0.75, 0.0)}
    save_bundle(tmp_path / "again.safetensors", network.state_dict(), header)
    metadata = bundle_parts(tmp_path / "again.safetensors")[0]["__metadata__"]
    assert json.loads(metadata["cxrtool"])["calibration"] == stored


@pytest.mark.parametrize(
    "edema",
    [
        {"slope": 0, "intercept": 0},
        {"slope": -1.0, "intercept": 0},
        {"slope": 1.0},
        {"intercept": 1.0},
        {"slope": 1.0, "intercept": "much"},
        {"slope": 1.0, "intercept": 0, "more": 1},
    ],
)
def test_an_invalid_scaling_is_refused(bundle: Path, edema: dict[str, object]) -> None:
    change_header(bundle, calibration=stored_calibration(**edema))
    with pytest.raises(ModelError, match=r"calibration\.scalings\.Edema"):
        read_header(bundle)


def test_an_opened_bundle_is_of_the_bytes_that_were_read(bundle: Path) -> None:
    opened = open_bundle(bundle)
    assert opened.path == bundle
    assert opened.sha256 == hashlib.sha256(bundle.read_bytes()).hexdigest()
    assert opened.header == read_header(bundle)


def test_a_header_is_changed_without_reading_the_file_again(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = open_bundle(bundle)
    monkeypatch.delattr(bundles, "open_bundle")
    bundles.change_header(opened, run="another")
    header = read_header(bundle)
    assert header == opened.header.model_copy(update={"run": "another"})


def test_what_another_command_stored_meanwhile_stays(bundle: Path) -> None:
    first, second = open_bundle(bundle), open_bundle(bundle)
    half = dict.fromkeys(FINDINGS, 0.5)
    bundles.change_header(first, run="of the first")
    bundles.change_header(second, thresholds=half)
    header = read_header(bundle)
    assert (header.run, header.thresholds) == ("of the first", half)


def test_a_bundle_that_was_replaced_by_another_model_is_not_written(bundle: Path) -> None:
    opened, other = open_bundle(bundle), open_bundle(bundle)
    weights = other.network.state_dict()
    weights["classifier.bias"] += 1
    save_bundle(bundle, weights, other.header)
    before = bundle.read_bytes()
    with pytest.raises(ModelError, match="replaced by another"):
        bundles.change_header(opened, run="of another")
    assert bundle.read_bytes() == before
    bundle.unlink()
    with pytest.raises(ModelError, match="No such file"):
        bundles.change_header(opened, run="of none")


def test_of_a_file_larger_than_any_bundle_no_more_is_read(bundle: Path) -> None:
    with bundle.open("ab") as file:
        file.truncate(2**36)  # sparse
    with pytest.raises(ModelError, match="its size does not match its safetensors header"):
        open_bundle(bundle)
