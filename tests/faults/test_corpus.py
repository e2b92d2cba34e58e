"""Inputs found by the fuzzer (benchmarks/fuzz.py), replayed as regression tests."""

import importlib.util
import shutil
from pathlib import Path

import pytest

CORPUS = sorted((Path(__file__).parent / "corpus").glob("*.bin"))
FUZZER = Path(__file__).parents[2] / "benchmarks" / "fuzz.py"


def fuzzer() -> object:
    spec = importlib.util.spec_from_file_location("fuzz", FUZZER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_a_fuzzed_input_raises_only_the_errors_of_its_reader(path: Path, tmp_path: Path) -> None:
    _, read, _ = fuzzer().READERS[path.name.partition("-")[0]]  # type: ignore[attr-defined]
    read(Path(shutil.copy(path, tmp_path / "current")))


@pytest.mark.parametrize("reader", ["image", "dicom", "bundle", "sheet", "checkpoint"])
def test_a_thousand_mutations_for_each_reader_raise_no_other_error(reader: str, tmp_path: Path) -> None:
    import random

    make, read, mutate = fuzzer().READERS[reader]  # type: ignore[attr-defined]
    seeds, rng = make(), random.Random(1)
    for _ in range(1000):
        path = tmp_path / "current"
        path.write_bytes(mutate(seeds, rng))
        read(path)
