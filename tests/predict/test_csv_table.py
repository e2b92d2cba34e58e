"""The table of ``cxr predict`` is the same after an interruption at any row."""

import csv
import io
import itertools
import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxrtool.choices import Device, Precision
from cxrtool.errors import RequestError
from cxrtool.files import csv_row
from cxrtool.findings import CHEXPERT5, FINDINGS
from cxrtool.predict.classifier import Classifier, FindingResult, Prediction
from cxrtool.predict.csv_table import TableIdentity, columns_of, open_table
from cxrtool.settings import RuntimeSettings
from cxrtool.text import printable

COLUMNS = columns_of(CHEXPERT5)

IDENTITY = TableIdentity(
    model_sha256="abc",
    thresholds=dict.fromkeys(FINDINGS, 0.5),
    backend="torch",
    precision="fp32",
    raw=False,
    batch_size=4,
    strict=False,
    window=None,
    hash_paths=False,
    max_megapixels=64,
    max_file_mib=256,
    reader="version 2",
)


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


ODD = ["", "\n", "\n\n", "\r\n", "\u2028", "\x85", "\x0b", '"', '"\n"', "é€\U0001f600", "\udc80"]
"""What the name of a file, which its error repeats, may hold on Linux."""


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("plain", [False, True])
def test_a_table_cut_at_any_place_ends_like_an_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, odd: str, plain: bool
) -> None:
    """With `plain`, the table is one of a version that wrote line breaks into its error cells as they are."""
    paths = [Path(f"{odd if place in (3, 5) else 'a'}{place}.jpg") for place in range(7)]
    identity = replace(IDENTITY, batch_size=2)
    monkeypatch.setattr(os, "fsync", lambda _: None)  # hundreds of tables, none of which has to survive

    def fill(name: str) -> bytes:
        with open_table(tmp_path / name, iter(paths), identity, lambda path: printable(str(path)), True) as table:
            for path in table.paths:
                table.write(Prediction(path, (), error=f"{path}: no image"))
        return (tmp_path / name).read_bytes()

    whole = fill("whole.csv")
    assert len(whole.decode().splitlines()) == 1 + len(paths)
    rows = list(csv.DictReader((tmp_path / "whole.csv").open(newline="", encoding="utf-8")))
    assert [row["error"] for row in rows] == [printable(f"{path}: no image") for path in paths]
    cells = list(csv.reader((tmp_path / "whole.csv").open(newline="", encoding="utf-8")))
    if plain:
        error = COLUMNS.index("error")
        for row, path in zip(cells[1:], paths, strict=True):
            row[error] = f"{path}: no image"
    before = "".join(csv_row(row) for row in cells).encode()
    ends = list(itertools.accumulate(len(csv_row(row).encode()) for row in cells))
    # Around every byte at which the result may change: quotes, line breaks and characters of several bytes.
    critical = [place for place, byte in enumerate(before[:-1]) if byte in b'"\r\n' or byte > 127]
    for cut in sorted({place + step for place in critical for step in (0, 1)}):
        (tmp_path / ".cut.csv.partial").write_bytes(before[:cut])
        (tmp_path / ".cut.csv.partial.json").write_text(json.dumps(asdict(identity)))
        kept = max(0, sum(end <= cut for end in ends) - 1) // 2 * 2
        (tmp_path / "cut.csv").unlink(missing_ok=True)
        found = fill("cut.csv")
        size = ends[kept] if kept else 0
        assert found[:size] == before[:size]
        assert rows_of(found) == rows_of(before)[: 1 + kept] + rows_of(whole)[1 + kept :]


def rows_of(content: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(content.decode(), newline="")))


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
