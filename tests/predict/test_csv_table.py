"""The table of ``cxr predict`` is the same after an interruption at any row."""

import csv
import itertools
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxrtool.choices import Device, Precision
from cxrtool.errors import RequestError
from cxrtool.findings import FINDINGS
from cxrtool.predict.classifier import Classifier, FindingResult, Prediction
from cxrtool.predict.csv_table import COLUMNS, TableIdentity, open_table
from cxrtool.settings import RuntimeSettings

IDENTITY = TableIdentity("abc", dict.fromkeys(FINDINGS, 0.5), "torch", "fp32", False, 4, False, None, False)


def prediction(path: Path) -> Prediction:
    """Return a prediction made from the number in the path; every fifth image is unreadable."""
    number = int(path.stem)
    if number % 5 == 4:
        return Prediction(path, (), error='cut, or "damaged"')
    values = [(number * step % 97) / 97 for step in range(1, 6)]
    results = (FindingResult(label, value, 0.5, value) for label, value in zip(FINDINGS, values, strict=True))
    return Prediction(path, tuple(results))


def paths_of(count: int) -> list[Path]:
    return [Path(f"{number}.png") for number in range(count)]


class StoppedError(Exception):
    """Stands for a signal."""


def write(path: Path, count: int, identity: TableIdentity, stop_after: int | None = None) -> int:
    """Write a table of `count` rows, or stop after some new ones; return the number of kept rows."""
    with open_table(path, iter(paths_of(count)), identity, str, resume=True) as table:
        for one in itertools.islice(table.paths, stop_after):
            table.write(prediction(one))
        if stop_after is not None:
            raise StoppedError
        return table.done


@given(st.integers(1, 30), st.integers(1, 7), st.lists(st.integers(0, 12), max_size=4))
def test_a_table_stopped_anywhere_ends_like_an_uninterrupted_one(
    tmp_path_factory: pytest.TempPathFactory, count: int, batch_size: int, stops: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("table")
    identity = replace(IDENTITY, batch_size=batch_size)
    write(folder / "whole.csv", count, identity)
    for stop_after in stops:
        with pytest.raises(StoppedError):
            write(folder / "parts.csv", count, identity, stop_after)
        assert not (folder / "parts.csv").exists()
    taken = write(folder / "parts.csv", count, identity)
    assert taken % batch_size == 0
    assert (folder / "parts.csv").read_bytes() == (folder / "whole.csv").read_bytes()
    assert sorted(one.name for one in folder.iterdir()) == ["parts.csv", "whole.csv"]


def test_the_rows_are_the_predictions(tmp_path: Path) -> None:
    write(tmp_path / "t.csv", 10, IDENTITY)
    rows = list(csv.DictReader((tmp_path / "t.csv").open(newline="")))
    assert list(rows[0])[: len(COLUMNS)] == list(COLUMNS)
    for path, row in zip(paths_of(10), rows, strict=True):
        one = prediction(path)
        assert row["path"] == str(path)
        assert row["error"] == (one.error or "")
        assert row["positive"] == ";".join(one.positives)
        assert [row[name] for name in FINDINGS if row[name]] == [str(value) for value in one.probabilities.values()]


def test_the_identity_holds_every_setting_that_changes_a_row(run_folder: Path) -> None:
    settings = RuntimeSettings(device=Device.CPU, precision=Precision.FP32, batch_size=4)
    classifier = Classifier.load(run_folder, settings)
    plain = TableIdentity.of(classifier, settings)
    assert plain.thresholds == dict(classifier.header.effective_thresholds)
    assert (plain.model_sha256, plain.backend, plain.precision) == (classifier.sha256, "torch", "fp32")
    for change in ({"batch_size": 8}, {"strict": True}, {"window": "2"}):
        (name,) = change
        other = TableIdentity.of(classifier, settings.model_copy(update=change))
        assert other == replace(plain, **change), name
    assert TableIdentity.of(classifier, settings, raw=True) == replace(plain, raw=True)
    assert TableIdentity.of(classifier, settings, hash_paths=True) == replace(plain, hash_paths=True)


@pytest.mark.parametrize(
    ("change", "words"),
    [({"model_sha256": "other"}, "model"), ({"precision": "bf16"}, "precision"), ({"window": "40,400"}, "window")],
)
def test_rows_of_another_model_or_setting_are_refused(tmp_path: Path, change: dict[str, str], words: str) -> None:
    with pytest.raises(StoppedError):
        write(tmp_path / "t.csv", 10, IDENTITY, 8)
    with pytest.raises(RequestError, match=words):
        write(tmp_path / "t.csv", 10, replace(IDENTITY, **change))  # type: ignore[arg-type]
    assert write(tmp_path / "t.csv", 10, IDENTITY) == 8
