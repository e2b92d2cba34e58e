from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxrtool.choices import Level
from cxrtool.errors import CxrError, RequestError
from cxrtool.evaluation.metrics import evaluate
from cxrtool.evaluation.mistakes import find_mistakes
from cxrtool.evaluation.table import PredictionTable, read_predictions, to_study_level, write_predictions
from cxrtool.evaluation.thresholds import threshold_curve, threshold_grid
from cxrtool.findings import FINDINGS
from tests_support import random_table


def make_table(studies: list[str], seed: int = 0, split: str = "valid") -> PredictionTable:
    rng = np.random.default_rng(seed)
    count = len(studies)
    return PredictionTable(
        ids=tuple(f"{split}/{study}/view{index}.jpg" for index, study in enumerate(studies)),
        patients=tuple(study.split("/")[0] for study in studies),
        studies=tuple(studies),
        images=np.ones(count, dtype=np.int64),
        split=split,
        level=Level.IMAGE,
        sheet_sha256="abc",
        model_sha256="def",
        scores=rng.random((count, 5)),
        targets=rng.integers(0, 2, (count, 5)).astype(np.float32),
        mask=rng.random((count, 5)) < 0.8,
    )


def same(a: PredictionTable, b: PredictionTable) -> None:
    assert (a.ids, a.patients, a.studies, a.split, a.level) == (b.ids, b.patients, b.studies, b.split, b.level)
    assert (a.sheet_sha256, a.model_sha256) == (b.sheet_sha256, b.model_sha256)
    np.testing.assert_array_equal(a.images, b.images)
    np.testing.assert_array_equal(a.scores, b.scores)
    np.testing.assert_array_equal(a.mask, b.mask)
    np.testing.assert_array_equal(np.where(a.mask, a.targets, 0), np.where(b.mask, b.targets, 0))


@given(st.lists(st.sampled_from(["p1/s1", "p1/s2", "p2/s1", "p3/s1"]), min_size=1, max_size=12), st.integers(0, 99))
def test_a_written_table_reads_back_exactly(
    tmp_path_factory: pytest.TempPathFactory, studies: list[str], seed: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "table.csv"
    for table in (make_table(studies, seed), to_study_level(make_table(studies, seed))):
        write_predictions(path, table)
        same(read_predictions(path), table)


def test_a_study_has_the_maximum_over_its_images_by_hand() -> None:
    table = make_table(["p1/s1", "p2/s1", "p1/s1"])
    probabilities = np.array([[0.1, 0.1, 0.1, 0.1, 0.8], [0.5] * 5, [0.9, 0.75, 0.2, 0.2, 0.3]])
    targets = np.array([[0, 0, 0, 1, 0], [1] * 5, [1, 0, 0, 0, 0]], dtype=np.float32)
    mask = np.array([[1, 1, 0, 1, 0], [1] * 5, [1, 0, 0, 1, 1]], dtype=bool)
    study = to_study_level(replace(table, scores=probabilities, targets=targets, mask=mask))
    assert study.ids == ("p1/s1", "p2/s1")
    assert study.images.tolist() == [2, 1]
    # The second finding's 0.75 and the fifth's 0.8 are of images that do not count; for the third no image counts.
    assert study.scores[0].tolist() == [0.9, 0.1, 0.2, 0.2, 0.3]
    assert study.targets[0].tolist() == [1, 0, 0, 1, 0]
    assert study.mask[0].tolist() == [True, True, False, True, True]
    assert to_study_level(study) is study


@pytest.mark.parametrize("level", Level)
def test_a_score_equal_to_its_threshold_is_positive_at_each_point_of_the_grid(tmp_path: Path, level: Level) -> None:
    """From a CSV with the digits as typed to every count of decisions."""
    grid = [place / 100 for place in range(5, 96)]
    lines = ["path,study,patient,split," + ",".join(f"{f},{f} probability" for f in FINDINGS)]
    lines += [f"{n}.jpg,p{n}/s1,p{n},valid" + f",1,{score}" * 5 for n, score in enumerate(grid)]
    lines += [f"b{n}.jpg,q{n}/s1,q{n},valid" + ",0,0.01" * 5 for n in range(3)]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    table = read_predictions(tmp_path / "t.csv")
    table = to_study_level(table) if level is Level.STUDY else table
    assert table.scores[:91, 0].tolist() == grid
    curve = threshold_curve(table.targets[:, 0], table.scores[:, 0], threshold_grid())
    for place, threshold in enumerate(grid):
        reached = 91 - place
        assert curve.recall[place] * 91 == pytest.approx(reached)
        same = dict.fromkeys(FINDINGS, threshold)
        at = evaluate(table, same).labels["Edema"].at_threshold
        assert at is not None
        assert (at.tp, at.fn, at.tn) == (reached, place, 3)
    # A missed positive at each threshold of the grid: the threshold is its score.
    missed = find_mistakes(replace(table, level=Level.IMAGE), dict.fromkeys(FINDINGS, 0.3), finding="Edema")
    assert {mistake.probability for mistake in missed} == {score for score in grid if score < 0.3}


def test_a_table_of_images_whose_labels_contradict_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = replace(make_table(["p1/s1", "p2/s1", "p1/s1", "p2/s1"]), mask=np.ones((4, 5), dtype=bool))
    targets = np.array([[1, 0, 0, 0, 0], [1] * 5, [0, 0, 0, 0, 0], [1] * 5], dtype=np.float32)
    write_predictions(tmp_path / "t.csv", replace(table, targets=targets))
    read_predictions(tmp_path / "t.csv")
    (message,) = caplog.messages
    assert message == (
        f"{tmp_path / 't.csv'}: studies with images whose labels contradict each other: 1 (p1/s1); such a study counts "
        "as positive"
    )
    caplog.clear()
    targets[2, 0] = 1
    write_predictions(tmp_path / "t.csv", replace(table, targets=targets))
    read_predictions(tmp_path / "t.csv")
    assert not caplog.messages


def test_columns_are_found_by_name(tmp_path: Path) -> None:
    table = to_study_level(make_table(["p1/s1", "p2/s1"]))
    write_predictions(tmp_path / "t.csv", table)
    lines = [line.split(",")[::-1] for line in (tmp_path / "t.csv").read_text().splitlines()]
    (tmp_path / "t.csv").write_text("\n".join(map(",".join, lines)) + "\n")
    same(read_predictions(tmp_path / "t.csv"), table)


def test_a_value_that_is_not_a_probability_is_refused_with_its_row() -> None:
    table = make_table(["p1/s1", "p2/s1"])
    for wrong in (np.nan, 1.2, -0.1):
        probabilities = table.scores.copy()
        probabilities[1, 3] = wrong
        with pytest.raises(CxrError, match="view1"):
            replace(table, scores=probabilities)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda text: text.replace("Edema probability", "Edema score"), "Edema probability"),
        (lambda text: text + text.splitlines()[1] + "\n", "twice"),
        (lambda text: text.splitlines()[0] + "\n", "no rows"),
        (lambda text: text.replace("valid", "test", 1), "mixes split"),
        (lambda text: text.replace("p1/s1,", "p1/s1,maybe", 1), "maybe"),
        (lambda text: text.replace("p1/s1,", "p1/s1,2", 1), "not 1, 0 or empty"),
    ],
)
def test_an_invalid_table_is_refused(tmp_path: Path, change: object, word: str) -> None:
    path = tmp_path / "t.csv"
    table = to_study_level(make_table(["p1/s1", "p2/s1"]))
    write_predictions(path, replace(table, mask=np.zeros((2, 5), dtype=bool)))
    path.write_text(change(path.read_text()))  # type: ignore[operator]
    with pytest.raises(RequestError, match=word):
        read_predictions(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="cannot read"):
        read_predictions(tmp_path / "none.csv")


def test_attributes_survive_the_csv_and_the_study_level(tmp_path: Path) -> None:
    table = replace(
        random_table(4), attributes={"sex": ("Male", "Male", "Female", ""), "Hospital": ("a", "b", "c", "=1")}
    )
    path = tmp_path / "t.csv"
    write_predictions(path, table)
    back = read_predictions(path)
    assert back.attributes["sex"] == table.attributes["sex"]
    assert back.attributes["Hospital"] == ("a", "b", "c", "'=1")
    images = replace(table, level=Level.IMAGE, studies=("p1/s1", "p1/s1", "p2/s1", "p3/s1"))
    assert to_study_level(images).attributes == {"sex": ("Male", "Female", ""), "Hospital": ("mixed", "c", "=1")}
