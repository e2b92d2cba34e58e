"""Whether an exported network still belongs to the bundle beside it."""

import json
from pathlib import Path

from cxrtool.choices import ExportFormat, Precision
from cxrtool.engines.export_record import Check, Export, ExportRecord, Pixels, is_made_from
from cxrtool.findings import FINDINGS
from cxrtool.model.bundle import open_bundle


def test_an_export_belongs_to_a_bundle_with_its_weights_preprocessing_and_findings(run_folder: Path) -> None:
    bundle = open_bundle(run_folder / "model.safetensors")
    preprocessing = json.loads(json.dumps(bundle.header.preprocessing))
    record = ExportRecord(
        format=ExportFormat.ONNX,
        precision=Precision.FP32,
        files={"onnx-fp32.onnx": "0" * 64},
        weights_sha256=bundle.header.weights_sha256,
        findings=FINDINGS,
        thresholds=None,
        calibration=None,
        image_size=32,
        preprocessing=preprocessing,
        input=Pixels(shape=("batch", 1, 32, 32)),
        check=Check(largest_difference=0, allowed=1e-4, images=1),
        int8=None,
        versions={},
        created="",
        intended_use="",
    )
    path = run_folder / "export" / "onnx-fp32.onnx"
    assert is_made_from(Export(path, record), bundle)
    changes = (
        {"weights_sha256": "0" * 64},
        {"findings": FINDINGS[::-1]},
        {"preprocessing": preprocessing | {"image_size": 64}},
        {"preprocessing": preprocessing | {"mean": [0.5, 0.5, 0.5]}},
    )
    for change in changes:
        assert not is_made_from(Export(path, record.model_copy(update=change)), bundle), change
