"""The model card."""

import json
from pathlib import Path

from conftest import Call
from cxrtool.model.bundle import change_header, open_bundle


def test_the_card_holds_data_policy_figures_thresholds_and_limits(
    call: Call, phantoms: Path, run: Path, tmp_path: Path
) -> None:
    change_header(open_bundle(run / "model.safetensors"), run="a|b <i>")
    done = call("report", run, "--card", "--data", phantoms, "--draws", 50)
    assert done.code == 0, done.stderr
    card = (run / "MODEL_CARD.md").read_text()
    for words in ("a\\|b &lt;i>", "u-ignore", "not a medical device", "train.csv", "Chosen by f1 on valid", "ECE"):
        assert words in card
    metrics = json.loads((run / "eval_test" / "metrics.json").read_text())
    for finding, row in metrics["labels"].items():
        if row["auroc"] is not None:
            mark = " *" if row["few_cases"] else ""
            assert f"| {finding}{mark} | {row['auroc']:.4f}" in card
