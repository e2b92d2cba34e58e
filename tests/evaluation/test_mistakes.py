"""Lists of mistakes."""

from dataclasses import replace

import numpy as np

from cxrtool.choices import Level, MistakeKind
from cxrtool.evaluation.mistakes import find_mistakes
from cxrtool.findings import FINDINGS
from tests_support import random_table

HALF = dict.fromkeys(FINDINGS, 0.5)


def test_mistakes_are_wrong_decisions_the_most_confident_first() -> None:
    table = replace(random_table(60, seed=8), level=Level.IMAGE)
    found = find_mistakes(table, HALF)
    for column, finding in enumerate(FINDINGS):
        wrong = {
            (MistakeKind.FALSE_POSITIVE.value, table.studies[row])
            if table.targets[row, column] == 0
            else (MistakeKind.FALSE_NEGATIVE.value, table.studies[row])
            for row in range(60)
            if table.mask[row, column] and (table.scores[row, column] >= 0.5) != (table.targets[row, column] > 0.5)
        }
        ours = [item for item in found if item.finding == finding]
        assert {(item.kind, item.study) for item in ours} == wrong
        falling = [item.probability for item in ours if item.kind == "false-positive"]
        assert falling == sorted(falling, reverse=True)
        rising = [item.probability for item in ours if item.kind == "false-negative"]
        assert rising == sorted(rising)
    top = find_mistakes(table, HALF, MistakeKind.FALSE_POSITIVE, "Edema", top=2)
    assert [item.rank for item in top] == [1, 2]
    assert {item.finding for item in top} == {"Edema"}
    studies = find_mistakes(random_table(20), HALF)
    assert studies
    assert all(item.path == item.study for item in studies), "a table of studies names no images"


def test_a_mistake_names_the_most_probable_image_of_its_study() -> None:
    table = random_table(2)
    probabilities = np.array([[0.6] * 5, [0.9] * 5])
    table = replace(
        table,
        level=Level.IMAGE,
        studies=("p/s", "p/s"),
        scores=probabilities,
        targets=np.zeros((2, 5), dtype=np.float32),
        mask=np.ones((2, 5), dtype=bool),
    )
    (mistake,) = find_mistakes(table, HALF, finding="Edema")
    assert mistake.path == table.ids[1]
    assert mistake.probability == 0.9
    mask = np.array([[True] * 5, [False] * 5])
    (mistake,) = find_mistakes(replace(table, mask=mask), HALF, finding="Edema")
    assert mistake.path == table.ids[0], "the label of the second image does not count"
    assert mistake.probability == 0.6
