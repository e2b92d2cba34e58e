"""Areas of draws, against scikit-learn on tables with repeated rows."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from cxrtool.evaluation.drawn_areas import bootstrap_areas
from cxrtool.evaluation.intervals import BootstrapSettings, PatientDraws
from cxrtool.findings import FINDINGS
from tests_support import random_table


@pytest.mark.parametrize("per_patient", [1, 3])
@pytest.mark.parametrize("positives", [1, 4, 59, 60])
def test_areas_are_those_of_repeated_rows(per_patient: int, positives: int) -> None:
    table = random_table(60)
    targets = table.targets.copy()
    targets[:, 0] = np.arange(60) < positives
    patients = tuple(f"p{row // per_patient}" for row in range(60))
    first = replace(table, targets=targets, patients=patients)
    tables = [first, replace(first, scores=np.round(random_table(60, 1).scores, 1))]
    settings = BootstrapSettings(40)
    weights = np.concatenate(list(PatientDraws(patients, settings).chunks())).astype(int)
    for one, found in zip(tables, bootstrap_areas(tables, settings), strict=True):
        for column, finding in enumerate(FINDINGS):
            for draw, weight in enumerate(weights):
                rows = np.repeat(np.arange(60), weight * one.mask[:, column])
                truth, scores = one.targets[rows, column], one.scores[rows, column]
                ours = (found[finding]["auroc"][draw], found[finding]["auprc"][draw])
                if len(set(truth)) < 2:
                    assert np.isnan(ours).all()
                else:
                    theirs = (roc_auc_score(truth, scores), average_precision_score(truth, scores))
                    assert ours == pytest.approx(theirs, abs=1e-12)
        defined = [found[finding]["auroc"] for finding in FINDINGS if not np.isnan(found[finding]["auroc"]).all()]
        assert found["mean"]["auroc"] == pytest.approx(np.mean(defined, axis=0), nan_ok=True)
