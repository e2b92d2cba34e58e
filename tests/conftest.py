"""Fixtures: synthetic data and a trained model, made once per session, and ways to run commands."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from warm import Warm

os.environ.setdefault("OMP_NUM_THREADS", "1")  # pytest already runs one process per core

# Measurements of this machine go to a cache of the tests, not to the user's.
os.environ["XDG_CACHE_HOME"] = str(Path(tempfile.gettempdir()) / f"cxrtool-tests-{os.getuid()}")

# Tests depend neither on timing nor on chance; HYPOTHESIS_PROFILE=explore searches for new counterexamples.
hypothesis.settings.register_profile("cxrtool", deadline=None, derandomize=True)
hypothesis.settings.register_profile("explore", deadline=None, max_examples=1000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "cxrtool"))

SHARED = Path(__file__).parents[2] / "shared"

Cxr = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def nih() -> Path:
    """427 real radiographs in a folder beside the project; skips if they are missing."""
    folder = SHARED / "nih-sample"
    if not folder.is_dir():
        pytest.skip("../shared/nih-sample does not exist")
    return folder


def run_cxr(
    *arguments: object, cwd: Path, stdin: str | None = None, under: Sequence[str] = (), **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run ``cxr`` in its own process; `under` is a command that starts it, such as setpriv."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CXR_")}
    return subprocess.run(
        [*under, sys.executable, "-m", "cxrtool", *map(str, arguments)],
        cwd=cwd,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=300,
        env={**clean, "NO_COLOR": "1", "OMP_NUM_THREADS": "1", **environment},
        check=False,
    )


@pytest.fixture
def cxr(tmp_path: Path) -> Cxr:
    """`run_cxr` in the folder of the test."""

    def run(*arguments: object, stdin: str | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
        return run_cxr(*arguments, cwd=tmp_path, stdin=stdin, **environment)

    return run


@dataclass(frozen=True)
class Done:
    """Exit code and output of a command."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """The JSON document on stdout; NaN and infinities are refused."""

        def refuse(name: str) -> None:
            raise AssertionError(f"{name} is not JSON")

        return json.loads(self.stdout, parse_constant=refuse)


Call = Callable[..., Done]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Like `cxr`, but in this process, which saves the seconds of importing torch."""
    from cxrtool.cli.app import main

    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("CXR_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NO_COLOR", "1")

    def run(*arguments: object) -> Done:
        before = signal.getsignal(signal.SIGTERM)
        logger = logging.getLogger("cxrtool")
        handlers, level, propagate = logger.handlers, logger.level, logger.propagate
        capsys.readouterr()
        try:
            with pytest.raises(SystemExit) as ended:
                main(list(map(str, arguments)))
        finally:
            signal.signal(signal.SIGTERM, before)
            logger.handlers, logger.propagate = handlers, propagate  # so that caplog sees what later tests log
            logger.setLevel(level)
        shown = capsys.readouterr()
        return Done(int(ended.value.code or 0), shown.out, shown.err)

    return run


def draw_phantoms(folder: Path, patients: int) -> Path:
    """Write a synthetic data set at 64 px."""
    from cxrtool.phantoms.dataset import write_phantom

    write_phantom(folder, patients, 64, seed=3)
    return folder


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of 40 synthetic patients at 64 px."""
    return draw_phantoms(tmp_path_factory.mktemp("data") / "phantoms", 40)


@pytest.fixture(scope="session")
def run_folder(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs on the phantoms at 32 px, trained and tuned on the command line."""
    folder = tmp_path_factory.mktemp("runs")
    train = ["train", "--data", phantoms, "--out", folder / "run", "--init", "none", "--image-size", 32]
    done = run_cxr(*train, "--epochs", 2, "--batch-size", 8, "--lr", 0.001, "--device", "cpu", cwd=folder)
    assert done.returncode == 0, done.stderr
    done = run_cxr("tune", "--data", phantoms, "--model", folder / "run", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "run"


@pytest.fixture
def run(run_folder: Path, tmp_path: Path) -> Path:
    """A copy of the trained run that a test may change.

    Without the 200 MB that only ``--resume`` needs, and without evaluations that other tests have left in the folder.
    """
    left_out = shutil.ignore_patterns("state*", "*-previous*", "eval_*", "evaluations.jsonl")
    return Path(shutil.copytree(run_folder, tmp_path / "run", ignore=left_out))


@pytest.fixture
def bundle(run_folder: Path, tmp_path: Path) -> Path:
    """A copy of the trained bundle alone, to be damaged."""
    return Path(shutil.copy(run_folder / "model.safetensors", tmp_path))


@pytest.fixture(scope="session")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of 20 synthetic patients: 22 images to train on, 6 to validate."""
    return draw_phantoms(tmp_path_factory.mktemp("data") / "few", 20)


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    """Starts real processes in milliseconds."""
    process = Warm(tmp_path_factory.mktemp("warm"))
    yield process
    process.close()
