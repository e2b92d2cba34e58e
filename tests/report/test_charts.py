"""The report's charts are drawn from the figures that their captions state."""

from pathlib import Path

import numpy as np
import pytest

from cxrtool.evaluation.operating import DecisionCurve, decision_curve
from cxrtool.findings import FINDINGS
from cxrtool.report import charts, plots
from cxrtool.report.content import gather
from cxrtool.report.plots import Chart
from cxrtool.resolved_settings import load_settings
from cxrtool.tasks.tune import calibrate_model


@pytest.mark.parametrize("calibrated", [False, True])
def test_net_benefit_is_that_of_the_calibrated_probabilities_if_there_are_any(
    phantoms: Path, run: Path, monkeypatch: pytest.MonkeyPatch, calibrated: bool
) -> None:
    settings = load_settings({"data.root": phantoms, "eval.draws": 10}, environ={}).settings
    if calibrated:
        calibrate_model(run, settings)
    content = gather(run, settings, top=None)
    drawn: dict[str, DecisionCurve] = {}
    draw = plots.decision_chart

    def note(finding: str, curve: DecisionCurve) -> Chart:
        drawn[finding] = curve
        return draw(finding, curve)

    monkeypatch.setattr(plots, "decision_chart", note)
    section = charts.decisions_section(content)
    assert ("these are not calibrated" in section.text[0]) == (not calibrated)
    table, scalings = content.table, content.header.scalings
    assert (scalings is not None) == calibrated
    for finding, curve in drawn.items():
        column = FINDINGS.index(finding)
        rows = table.mask[:, column]
        shown = table.scores[rows, column].astype(np.float64)
        if scalings is not None:
            logits = np.log(shown / (1 - shown))
            shown = 1 / (1 + np.exp(-scalings[finding].slope * logits - scalings[finding].intercept))
        expected = decision_curve(table.targets[rows, column], shown)
        np.testing.assert_allclose(curve.model, expected.model, atol=1e-12)
    assert drawn
