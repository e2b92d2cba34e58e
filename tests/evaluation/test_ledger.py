"""The ledger of evaluations."""

import hashlib
import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from conftest import Call
from cxrtool.evaluation.ledger import LEDGER_NAME, Look, digest_of_rows, looks_at, read_ledger, record_look

LOOK = Look(
    time="2026-01-05T10:00:00+00:00",
    command="eval",
    split="test",
    sheet_sha256="ab" * 32,
    rows_sha256="cd" * 32,
    images=3,
    studies=2,
    patients=1,
    weights_sha256="ef" * 32,
    version="0.1.0",
    options={"level": "study", "draws": 1000},
)


def test_rows_have_one_digest_in_any_order() -> None:
    assert digest_of_rows(["b.jpg", "a.jpg"]) == hashlib.sha256(b"a.jpg\nb.jpg\n").hexdigest()
    assert digest_of_rows(["a.jpg"]) != digest_of_rows(["a.jpg", "b.jpg"])


def test_looks_are_counted_by_split_and_sheet_and_weights_told_apart(tmp_path: Path) -> None:
    looks = [
        replace(LOOK, time="2026-02-01T00:00:00+00:00", command="compare"),
        LOOK,
        replace(LOOK, weights_sha256="00" * 32),
        replace(LOOK, split="valid"),
        replace(LOOK, sheet_sha256="11" * 32),
    ]
    for look in looks:
        record_look(tmp_path, look)
    assert read_ledger(tmp_path) == tuple(looks)
    found = looks_at(read_ledger(tmp_path), "test", LOOK.sheet_sha256)
    assert found is not None
    assert (found.count, found.first[:10], found.last[:10], found.weights) == (3, "2026-01-05", "2026-02-01", 2)
    assert found.short() == "3 times, 2026-01-05 to 2026-02-01, with 2 different weights"
    assert found.commands == {"compare": 1, "eval": 2}
    assert "2 different weights" in (found.warning() or "")
    valid = looks_at(read_ledger(tmp_path), "valid", LOOK.sheet_sha256)
    assert valid is not None
    assert valid.warning() is None
    assert looks_at(read_ledger(tmp_path), "train", LOOK.sheet_sha256) is None


def test_a_line_that_was_cut_off_costs_only_itself(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    record_look(tmp_path, LOOK)
    path = tmp_path / LEDGER_NAME
    path.write_bytes(path.read_bytes()[:-40])
    record_look(tmp_path, LOOK)
    with path.open("a") as file:
        file.write('{"time": 1}\n[]\n')
    assert read_ledger(tmp_path) == (LOOK,)
    assert "3 of 4 lines cannot be read" in caplog.text


def test_looks_at_the_same_time_are_all_kept(tmp_path: Path) -> None:
    threads = [threading.Thread(target=record_look, args=(tmp_path, replace(LOOK, images=n))) for n in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(look.images for look in read_ledger(tmp_path)) == list(range(40))


def test_a_folder_that_cannot_be_written_gives_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / LEDGER_NAME).mkdir()  # root may write into any folder, but nobody into this name
    record_look(tmp_path, LOOK)
    assert "this look at the test split is not recorded" in caplog.text


def test_commands_that_run_a_model_on_a_split_record_it(call: Call, phantoms: Path, run: Path, tmp_path: Path) -> None:
    (run / LEDGER_NAME).unlink(missing_ok=True)
    data = ("--data", phantoms, "--model", run)
    assert call("eval", *data, "--draws", 10, "--out", tmp_path / "figures").code == 0
    assert call("eval", *data, "--draws", 10, "--split", "train").code == 0
    assert call("errors", *data, "--top", 1).code == 0
    assert call("localize", *data, "--limit", 2, "--methods", "grad-cam").code == 0
    ledger = read_ledger(run)
    assert [(look.command, look.split) for look in ledger] == [
        ("eval", "test"),
        ("errors", "test"),
        ("localize", "test"),
    ]
    metrics = json.loads((tmp_path / "figures" / "metrics.json").read_text())
    assert (ledger[0].images, ledger[0].studies) == (metrics["images"], metrics["studies"])
    assert ledger[0].weights_sha256 == metrics["model"]["weights_sha256"]
    assert (ledger[0].options["draws"], ledger[0].out) == (10, str(tmp_path / "figures"))
    assert len({look.rows_sha256 for look in ledger}) == 1
    shown = call("info", run, "--json").json["evaluations"]
    assert [(one["split"], one["count"]) for one in shown] == [("test", 3)]
    assert "3 times" in call("info", run).stdout
