"""``cxr predict --shard`` and ``cxr merge``: the parts are the table that one process writes, or are refused."""

import json
import signal
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from conftest import Call
from tests_support import link_radiographs, with_a_most_probable
from warm import Warm, until

BATCH = 8


@pytest.fixture(scope="module")
def many(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """75 files, of which nine are broken: nine batches of 8 and three more."""
    folder = tmp_path_factory.mktemp("many") / "many"
    links = link_radiographs(phantoms, folder, 75)
    for path in links[3::8]:
        path.unlink()
        path.write_bytes(b"no image")
    return folder


@pytest.fixture
def predict(call: Call, run_folder: Path, many: Path, tmp_path: Path) -> Callable[..., str]:
    """Predict `many` into a table; its messages are returned."""

    def run(name: str, *options: object) -> str:
        done = call("predict", many, "--model", run_folder, "--batch-size", BATCH, "--csv", name, *options)
        assert (tmp_path / name).exists(), done.stderr
        return done.stdout + done.stderr

    return run


@pytest.mark.parametrize("count", [1, 3, 10, 14])
def test_parts_put_together_are_the_table_of_one_process(
    call: Call, predict: Callable[..., str], tmp_path: Path, count: int
) -> None:
    """14 parts are more than the ten batches, so that some are empty."""
    predict("whole.csv")
    names = [f"part{number}.csv" for number in range(1, count + 1)]
    for number, name in enumerate(names, 1):
        predict(name, "--shard", f"{number}/{count}")
    done = call("merge", *reversed(names), "merged.csv", "--json")
    assert done.code == 0, done.stderr
    assert done.json == {"out": "merged.csv", "parts": count, "rows": 75, "failed": 9}
    assert (tmp_path / "merged.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_a_part_says_which_rows_of_what_it_holds(predict: Callable[..., str], many: Path, tmp_path: Path) -> None:
    assert "part 2/3, 24 images, 3 of them unreadable" in predict("b.csv", "--shard", "2/3", "--strict", "--hash-paths")
    record = json.loads((tmp_path / "b.csv.part.json").read_text())
    # ten batches of 8: three, three and four of them
    assert [record[key] for key in ("first", "stop", "total", "failed", "shard")] == [24, 48, 75, 3, "2/3"]
    names = "".join(f"{path}\0" for path in sorted(many.iterdir()))
    assert record["inputs_sha256"] == sha256(names.encode()).hexdigest()
    assert record["csv_sha256"] == sha256((tmp_path / "b.csv").read_bytes()).hexdigest()
    assert record["table"]["batch_size"] == BATCH
    assert record["table"]["strict"] is record["table"]["hash_paths"] is True
    assert str(many) not in (tmp_path / "b.csv").read_text() + json.dumps(record)


def test_gaps_overlaps_and_mixed_parts_are_refused(call: Call, predict: Callable[..., str], tmp_path: Path) -> None:
    for number in (1, 2, 3):
        predict(f"{number}.csv", "--shard", f"{number}/3")
    predict("half.csv", "--shard", "1/2")
    predict("raw.csv", "--shard", "2/3", "--raw", "--thresholds", "0.1,0.2,0.3,0.4,0.5")
    predict("whole.csv")

    def refused(*parts: str) -> str:
        done = call("merge", *parts, "out.csv")
        assert done.code == 2
        assert not (tmp_path / "out.csv").exists()
        return done.stderr

    assert "no part holds rows 25 to 48 of 75" in refused("1.csv", "3.csv")
    assert "no part holds rows 1 to 24 of 75" in refused("3.csv", "2.csv")
    assert "no part holds rows 49 to 75 of 75" in refused("1.csv", "2.csv")
    assert "1.csv and half.csv both hold rows 1 to 24" in refused("1.csv", "2.csv", "3.csv", "half.csv")
    assert "2.csv and 2.csv both hold rows 25 to 48" in refused("1.csv", "2.csv", "2.csv", "3.csv")
    assert "raw.csv has another thresholds, raw than 1.csv" in refused("1.csv", "raw.csv", "3.csv")
    assert "whole.csv has no whole.csv.part.json beside it" in refused("whole.csv")
    (tmp_path / "2.csv").write_text((tmp_path / "2.csv").read_text().replace("0029", "0030", 1))
    assert "2.csv was changed after it was written" in refused("1.csv", "2.csv", "3.csv")
    (tmp_path / "2.csv.part.json").write_text('{"kind": "cxrtool part 9"}')
    assert "2.csv has a record that cannot be read, or is of another version" in refused("1.csv", "2.csv", "3.csv")
    done = call("merge", "1.csv", "3.csv", "1.csv")
    assert done.code == 2
    assert "1.csv is one of the parts" in done.stderr


def test_parts_of_other_lists_and_models_are_refused(
    call: Call, predict: Callable[..., str], run_folder: Path, many: Path, tmp_path: Path
) -> None:
    predict("1.csv", "--shard", "1/2")
    other = with_a_most_probable(run_folder / "model.safetensors", "Edema", tmp_path / "other.safetensors")
    for inputs, model, words in (
        (sorted(many.iterdir())[:70], run_folder, "another list of inputs than"),
        ([many], other, "another model sha256"),
    ):
        done = call("predict", *inputs, "--model", model, "--batch-size", BATCH, "--csv", "2.csv", "--shard", "2/2")
        assert done.code == 1
        assert words in call("merge", "1.csv", "2.csv", "out.csv").stderr


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/0", "-1/2"])
def test_a_share_that_is_none_is_refused(call: Call, run_folder: Path, many: Path, text: str) -> None:
    done = call("predict", many, "--model", run_folder, "--csv", "out.csv", "--shard", text)
    assert done.code == 2
    assert "is not from 1/N to N/N" in done.stderr


def test_a_killed_part_goes_on_to_the_same_bytes(
    call: Call, warm: Warm, run_folder: Path, many: Path, predict: Callable[..., str], tmp_path: Path
) -> None:
    predict("whole.csv", "--shard", "2/2")
    arguments = ["predict", many, "--model", run_folder, "--batch-size", BATCH, "--csv", "part.csv", "--shard", "2/2"]
    slowly = (
        "import time, cxrtool.engines.engine as e\n"
        "plain = e.TorchEngine.logits\n"
        "e.TorchEngine.logits = lambda self, pixels: (time.sleep(0.3), plain(self, pixels))[1]\n"
    )
    child = warm.start(*arguments, cwd=tmp_path, patch=slowly)
    partial = tmp_path / ".part.csv.partial.json"
    until(partial.exists)
    child.kill(signal.SIGKILL)
    child.wait()
    assert not (tmp_path / "part.csv").exists()
    predict("part.csv", "--shard", "2/2", "--resume-csv")
    assert (tmp_path / "part.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    predict("first.csv", "--shard", "1/2")
    assert call("merge", "part.csv", "first.csv", "merged.csv").code == 0
