import json
import logging
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image

from conftest import Call, Cxr
from cxrtool import Classifier
from cxrtool.choices import Backend, Device, ExportFormat, Precision
from cxrtool.data.images import list_images
from cxrtool.engines import export as exporting
from cxrtool.engines import open as opening
from cxrtool.engines import runtimes
from cxrtool.engines.device import sigmoid
from cxrtool.engines.engine import Engine
from cxrtool.engines.export import ExportSettings, export_model, with_export
from cxrtool.engines.export_record import Export, can_run, export_name, read_export
from cxrtool.engines.open import open_engine
from cxrtool.engines.runtimes import has_bf16
from cxrtool.errors import CxrError, RequestError
from cxrtool.findings import FINDINGS
from cxrtool.model.bundle import open_bundle, read_header, save_bundle
from cxrtool.phantoms.check_images import check_images
from cxrtool.settings import RuntimeSettings

ONNX, OPENVINO = ExportFormat.ONNX, ExportFormat.OPENVINO
BACKENDS = {Backend.ONNX: ONNX, Backend.OPENVINO: OPENVINO}
DOCUMENT = Path(__file__).parents[2] / "docs" / "export.md"

Exported = Callable[..., Export]


@pytest.fixture(scope="session")
def exported(run_folder: Path, phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Exports of one model, each made once per session, however many processes pytest runs."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "exported"
    folder.mkdir(exist_ok=True)

    def make(kind: ExportFormat, precision: Precision = Precision.FP32) -> Export:
        if not can_run(kind):
            pytest.skip(f"the extra of {kind} is not installed")
        name = f"{kind}-{precision}"
        with FileLock(folder / f"{name}.lock"):
            model = folder / name / "model.safetensors"
            if not model.exists():
                model.parent.mkdir()
                images = phantoms / "train" if precision is Precision.INT8 else None
                bundle = open_bundle(run_folder / "model.safetensors")
                export_model(bundle, ExportSettings(kind, precision, images, model.parent / "export"))
                shutil.copy(bundle.path, model)
            found = read_export(model.parent / "export" / export_name(kind, precision))
            assert found is not None
            return found

    return make


@pytest.fixture
def model_with(exported: Exported, tmp_path: Path) -> Callable[..., Path]:
    """A bundle of the test's own with these exports beside it."""

    def make(*exports: tuple[ExportFormat, Precision]) -> Path:
        for kind, precision in exports:
            shutil.copytree(exported(kind, precision).path.parents[1], tmp_path / "run", dirs_exist_ok=True)
        return tmp_path / "run" / "model.safetensors"

    return make


def using(backend: Backend, precision: Precision = Precision.AUTO) -> RuntimeSettings:
    return RuntimeSettings(device=Device.CPU, backend=backend, precision=precision)


def some_pixels(count: int) -> NDArray[np.uint8]:
    return np.random.default_rng(count).integers(0, 256, (count, 1, 32, 32), dtype=np.uint8)


def torchvision_logits(model: Path, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return logits of torchvision's network, with the normalisation written out."""
    from torchvision.models import densenet121

    weights = open_bundle(model).network.state_dict()
    network = densenet121(weights=None, num_classes=5).eval()
    network.load_state_dict(weights)
    grey = torch.from_numpy(pixels).float().repeat(1, 3, 1, 1) / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        logits: NDArray[np.float32] = network((grey - mean[:, None, None]) / std[:, None, None]).numpy()
    return logits


@pytest.mark.takes_minutes
@pytest.mark.parametrize("backend", BACKENDS)
def test_backends_agree_with_torchvision_at_every_batch_size(backend: Backend, model_with: Callable[..., Path]) -> None:
    model = model_with((BACKENDS[backend], Precision.FP32))
    bundle = open_bundle(model)
    engine = open_engine(bundle, using(backend), reported=True)
    assert (engine.how.backend, engine.how.precision) == (backend.value, "fp32")
    for count in (1, 3, 16):
        pixels = some_pixels(count)
        expected = torchvision_logits(model, pixels)
        logits = engine.logits(pixels)
        assert logits.shape == (count, 5)
        assert logits.dtype == np.float32
        np.testing.assert_allclose(logits, expected, atol=1e-3)
        np.testing.assert_allclose(sigmoid(logits), torch.sigmoid(torch.from_numpy(expected)), atol=1e-4)
    # Columns differ by more than that, so that another order of findings could not pass.
    assert np.diff(np.sort(expected, axis=1), axis=1).max(axis=0).min() > 1e-2


@pytest.mark.takes_minutes
@pytest.mark.parametrize("kind", list(ExportFormat))
def test_the_documented_code_reads_each_format_without_cxrtool(
    kind: ExportFormat, exported: Exported, phantoms: Path, tmp_path: Path
) -> None:
    export = exported(kind)
    block = re.search(rf"<!-- {kind} -->\n```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    shutil.copytree(export.path.parent, tmp_path / "export")
    radiograph = list_images([phantoms / "test"], recursive=True)[0]
    shutil.copy(radiograph, tmp_path / "image.jpg")
    # Print the result for the comparison, and check that cxrtool was not imported.
    report = "\nimport json, sys\nassert 'cxrtool' not in sys.modules\nprint(json.dumps(probabilities.tolist()))\n"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", block[1] + report],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    theirs = json.loads(done.stdout.splitlines()[-1])
    ours = Classifier.load(export.path.parents[1], settings=using(Backend.TORCH, Precision.FP32), raw=True).predict(
        radiograph
    )
    assert theirs[0] == pytest.approx([ours.probabilities[finding] for finding in FINDINGS], abs=1e-4)
    assert export.record.findings == FINDINGS
    assert f"{FINDINGS[0]}" in done.stdout


@pytest.mark.parametrize("kind", list(ExportFormat))
def test_the_record_describes_the_export(kind: ExportFormat, exported: Exported) -> None:
    export = exported(kind)
    header = read_header(export.path.parents[1] / "model.safetensors")
    content = json.loads(export.path.with_suffix(".json").read_text())
    assert content["weights_sha256"] == header.weights_sha256
    assert content["findings"] == list(FINDINGS)
    assert content["thresholds"] == header.thresholds
    assert content["image_size"] == 32
    assert content["preprocessing"]["mean"] == [0.485, 0.456, 0.406]
    assert 0 <= content["check"]["largest_difference"] <= 1e-4
    assert "not a medical device" in content["intended_use"]
    assert set(content["versions"]) >= {"cxrtool", "torch"}
    assert set(content["files"]) == {path.name for path in export.path.parent.iterdir()} - {f"{export.path.stem}.json"}


def test_an_onnx_file_contains_no_paths_of_the_machine(exported: Exported) -> None:
    assert b"site-packages" not in exported(ONNX).path.read_bytes()


@pytest.mark.takes_minutes
def test_int8_differs_from_torch_by_the_recorded_amount(model_with: Callable[..., Path]) -> None:
    model = model_with((OPENVINO, Precision.INT8))
    bundle = open_bundle(model)
    engine = open_engine(bundle, using(Backend.OPENVINO, Precision.INT8), reported=True)
    assert (engine.how.backend, engine.how.precision) == ("openvino", "int8")
    pixels = check_images(bundle.header.image_preprocessing)
    difference = np.abs(sigmoid(engine.logits(pixels)) - sigmoid(torchvision_logits(model, pixels))).max()
    export = read_export(model.parent / "export" / "openvino-int8.xml")
    assert export is not None
    assert difference == pytest.approx(export.record.check.largest_difference, abs=1e-4)
    assert 0 < difference <= 0.2
    assert export.record.int8 is not None
    assert export.record.int8.images >= 32
    assert "FakeQuantize" in export.path.read_text()


def changed_weights(model: Path) -> None:
    bundle = open_bundle(model)
    bundle.network.classifier.bias.data += 1
    save_bundle(model, bundle.network.state_dict(), bundle.header)


def test_a_stale_export_is_replaced_with_a_message(
    model_with: Callable[..., Path], phantoms: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_with((OPENVINO, Precision.FP32), (OPENVINO, Precision.INT8))
    changed_weights(model)
    image = list_images([phantoms / "test"], recursive=True)[0]
    monkeypatch.setattr(opening, "bf16_is_faster", lambda _device: False)
    done = call("predict", image, "--model", model, "--json")
    assert done.json["model"]["backend"] == "torch"
    assert "openvino-fp32.xml was made from other weights and is not used" in done.stderr
    done = call("predict", image, "--model", model, "--backend", "openvino", "--precision", "int8")
    assert done.code == 2
    assert "openvino-int8.xml was made from other weights" in done.stderr
    assert f"cxr export {model} --format openvino --precision int8 --images FOLDER" in done.stderr
    known = "openvino_telemetry" in sys.modules
    done = call("predict", image, "--model", model, "--backend", "openvino", "--precision", "fp32", "--json")
    assert done.code == 0
    assert "was made from other weights; exporting it now" in done.stderr
    assert done.json["model"]["backend"] == "openvino"
    assert done.json["model"]["precision"] == "fp32"
    assert known or "openvino_telemetry" not in sys.modules
    pixels = np.asarray(Image.open(image).resize((32, 32), Image.Resampling.BILINEAR))[None, None]
    expected = sigmoid(torchvision_logits(model, pixels))[0]
    found = [item["raw_probability"] for item in done.json["predictions"][0]["findings"]]
    np.testing.assert_allclose(found, expected, atol=1e-4)
    again = call("predict", image, "--model", model, "--backend", "openvino", "--precision", "fp32", "--json")
    assert "exporting" not in again.stderr
    assert "other weights" not in again.stderr
    assert again.stdout == done.stdout


def test_auto_uses_a_matching_export_but_not_int8_nor_for_reported_metrics(
    model_with: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "bf16_is_faster", lambda _device: False)
    monkeypatch.setattr(opening, "CLOSE_ENOUGH", 1.0)  # how far bf16 moves this model depends on the processor
    model = model_with((OPENVINO, Precision.INT8))
    bundle = open_bundle(model)

    def chosen(reported: bool = False, precision: Precision = Precision.AUTO) -> tuple[str, str]:
        how = open_engine(bundle, using(Backend.AUTO, precision), reported).how
        return how.backend, how.precision

    assert chosen() == ("torch", "fp32")
    model_with((OPENVINO, Precision.FP32))
    assert chosen() == ("openvino", "fp32")
    assert chosen(precision=Precision.FP32) == ("openvino", "fp32")
    assert chosen(reported=True) == ("torch", "fp32")
    assert chosen(precision=Precision.BF16) == ("torch", "bf16")
    monkeypatch.setattr(opening, "bf16_is_faster", lambda _device: True)
    assert chosen() == ("openvino", "bf16" if has_bf16(Backend.OPENVINO) else "fp32")
    assert chosen(precision=Precision.FP32) == ("openvino", "fp32")
    shutil.rmtree(model.parent / "export")
    model_with((ExportFormat.ONNX, Precision.FP32))
    assert chosen() == ("torch", "bf16")
    assert chosen(precision=Precision.FP32) == ("onnx", "fp32")
    shutil.rmtree(model.parent / "export")
    model_with((OPENVINO, Precision.FP32))
    monkeypatch.setattr(opening, "bf16_is_faster", lambda _device: False)
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert chosen() == ("torch", "fp32")


def test_an_export_with_a_flipped_byte_is_not_used(
    model_with: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "bf16_is_faster", lambda _device: False)
    model = model_with((OPENVINO, Precision.FP32))
    weights = model.parent / "export" / "openvino-fp32.bin"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    assert read_export(weights.with_suffix(".xml")) is None
    bundle = open_bundle(model)
    assert open_engine(bundle, using(Backend.AUTO), reported=False).how.backend == "torch"


def test_predicting_with_openvino_sends_no_telemetry(
    model_with: Callable[..., Path], phantoms: Path, tmp_path: Path
) -> None:
    """openvino_telemetry sends a report when OpenVINO is imported, unless the package itself fails to import."""
    model = model_with((OPENVINO, Precision.FP32))
    image = list_images([phantoms / "test"], recursive=True)[0]
    program = f"""
import sys
from cxrtool import Classifier
from cxrtool.settings import RuntimeSettings
classifier = Classifier.load({str(model)!r}, settings=RuntimeSettings(backend="openvino", precision="fp32"))
assert classifier.predict({str(image)!r}).findings
assert classifier.engine.how.backend == "openvino"
sys.exit("openvino_telemetry" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_threads_share_an_engine(model_with: Callable[..., Path]) -> None:
    model = model_with((OPENVINO, Precision.FP32))
    bundle = open_bundle(model)
    engine = open_engine(bundle, using(Backend.OPENVINO, Precision.FP32), reported=False)
    batches = [some_pixels(count) for count in (1, 2, 3, 5) * 4]
    alone = [engine.logits(batch) for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        for ours, together in zip(alone, pool.map(engine.logits, batches), strict=True):
            np.testing.assert_allclose(together, ours, atol=1e-5)


@pytest.mark.parametrize(
    ("library", "arguments"),
    [
        ("onnxruntime", ("predict", "x.jpg", "--backend", "onnx")),
        ("openvino", ("predict", "x.jpg", "--backend", "openvino")),
        ("onnxscript", ("export", "--format", "onnx")),
        ("openvino", ("export", "--format", "openvino")),
        ("nncf", ("export", "--format", "openvino", "--precision", "int8", "--images", ".")),
    ],
)
def test_a_missing_library_is_named_with_its_install_command(
    library: str, arguments: tuple[str, ...], run_folder: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    done = call(*arguments, *(("--model", run_folder) if arguments[0] == "predict" else (run_folder,)))
    extra = "onnx" if "onnx" in library else "openvino"
    assert done.code == 2
    assert f"{extra} needs {library}, which is not installed" in done.stderr
    assert f"pip install 'cxrtool[{extra}]'" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--format", "openvino", "--precision", "int8"), "--precision int8 needs radiographs for calibration"),
        (("--format", "onnx", "--precision", "int8", "--images", "."), "int8 works with openvino, not with onnx"),
        (("--format", "onnx", "--precision", "bf16"), "--precision bf16 cannot be exported"),
        (("--format", "onnx", "--images", "."), "--images is only for --precision int8"),
        (("--format", "openvino", "--precision", "int8", "--images", "nowhere"), "--images nowhere is not a folder"),
        (("--format", "openvino", "--precision", "int8", "--images", "few"), "has 3 readable radiographs"),
        (("--format", "tflite"), "tflite"),
    ],
)
def test_unsupported_exports_are_refused(
    arguments: tuple[str, ...], message: str, run_folder: Path, phantoms: Path, call: Call, tmp_path: Path
) -> None:
    (tmp_path / "few").mkdir()
    for number, path in enumerate(list_images([phantoms / "test"], recursive=True)[:4]):
        shutil.copy(path, tmp_path / "few" / f"{number}{'_lateral' if number == 3 else ''}.jpg")
    done = call("export", run_folder, *arguments)
    assert done.code == 2
    assert message in done.stderr
    assert not (run_folder / "export").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--backend", "onnx", "--precision", "int8"), "--backend onnx runs in fp32, not int8"),
        (("--backend", "onnx", "--device", "cuda"), "--backend onnx runs on the CPU"),
        (("--precision", "int8"), "Use --backend openvino"),
        (("--backend", "openvino", "--precision", "int8"), "openvino-int8.xml does not exist"),
    ],
)
def test_settings_that_a_backend_does_not_support_are_refused(
    arguments: tuple[str, ...], message: str, run_folder: Path, call: Call
) -> None:
    done = call("predict", "x.jpg", "--model", run_folder, *arguments)
    assert done.code == 2
    assert message in done.stderr


def test_bf16_runs_if_openvino_supports_it_and_is_refused_otherwise(
    model_with: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_with((OPENVINO, Precision.FP32))
    bundle = open_bundle(model)
    pixels = some_pixels(3)

    def opened(precision: Precision) -> Engine:
        return open_engine(bundle, using(Backend.OPENVINO, precision), reported=True)

    if has_bf16(Backend.OPENVINO):
        engine = opened(Precision.BF16)
        assert engine.how.precision == "bf16"
        assert not np.array_equal(engine.logits(pixels), opened(Precision.FP32).logits(pixels))
    monkeypatch.setattr(runtimes, "has_bf16", lambda _backend: False)
    with pytest.raises(RequestError, match="cannot use bfloat16 on this CPU"):
        opened(Precision.BF16)
    assert opened(Precision.FP32).how.precision == "fp32"


@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="ONEDNN_MAX_CPU_ISA is for x86")
def test_bf16_is_refused_if_openvino_may_not_use_it(model_with: Callable[..., Path], cxr: Cxr) -> None:
    model = model_with((OPENVINO, Precision.FP32))
    arguments = ("predict", "x.jpg", "--model", model, "--backend", "openvino", "--precision", "bf16")
    done = cxr(*arguments, ONEDNN_MAX_CPU_ISA="AVX2")
    assert done.returncode == 2
    assert "cannot use bfloat16 on this CPU" in done.stderr


def test_an_export_that_disagrees_with_torch_is_removed(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")

    def turned(self: exporting.ExportGraph, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = self.network(pixels).flip(1)
        return {"logits": logits, "probabilities": torch.sigmoid(logits)}

    monkeypatch.setattr(exporting.ExportGraph, "forward", turned)
    with pytest.raises(CxrError, match=r"openvino-fp32.xml disagrees with torch by 0\.\d+ in probability"):
        export_model(open_bundle(run_folder / "model.safetensors"), ExportSettings(OPENVINO, out=tmp_path / "out"))
    assert not list(tmp_path.iterdir())


def test_an_export_is_temporary_if_the_folder_is_not_writable(
    run_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("openvino")
    model = tmp_path / "model.safetensors"
    shutil.copy(run_folder / "model.safetensors", model)
    (tmp_path / "export").write_text("a file where the folder should be")
    settings = using(Backend.OPENVINO, Precision.FP32)
    with caplog.at_level(logging.INFO), with_export(open_bundle(model), settings) as bundle:
        engine = open_engine(bundle, settings, reported=False)
    assert "a temporary export is used for this run" in caplog.text
    np.testing.assert_allclose(engine.logits(some_pixels(2)), torchvision_logits(model, some_pixels(2)), atol=1e-3)
    assert {path.name for path in tmp_path.iterdir()} == {"model.safetensors", "export"}
