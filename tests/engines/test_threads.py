"""How many threads the network uses, in this process and in forked children."""

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cxrtool.benchmarks.measure import untrained_bundle
from cxrtool.cli import app
from cxrtool.cli.app import SHORT_SPIN, SLEEP, limit_spinning
from cxrtool.engines.threads import LoadedIn
from cxrtool.errors import CxrError
from cxrtool.processors import cgroup_share, usable_processors
from cxrtool.settings import RuntimeSettings

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "2"}
"""Two threads, because a pool of one has nobody to wait for."""


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained_bundle(tmp_path_factory.mktemp("untrained") / "model.safetensors", 64)


def python(script: str, *arguments: object, **environment: str) -> str:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(
        command, env={**ENVIRONMENT, **environment}, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


FORK = """
import os, sys, threading
import numpy as np, torch
from cxrtool import Classifier
from cxrtool.settings import RuntimeSettings

classifier = Classifier.load(sys.argv[1], RuntimeSettings(backend="torch", precision="fp32"))
image = np.random.default_rng(0).integers(0, 255, (96, 96)).astype(np.uint8)
answers = [None]

def answer():
    result = classifier.predict(image).probabilities
    heat = classifier.explain(image, "Edema").heatmap
    answers[0] = list(result.values()), float(heat.sum())

if sys.argv[2] == "warm":
    answer()

def run_child(in_thread):
    before = answers[0]
    if in_thread:
        thread = threading.Thread(target=answer)
        thread.start()
        thread.join()
    else:
        answer()
        assert torch.get_num_threads() == 1
        Classifier.load(sys.argv[1], RuntimeSettings(threads=2, backend="torch"))
        assert torch.get_num_threads() == 1
    if before is not None:
        np.testing.assert_allclose(answers[0][0], before[0], atol=1e-5)
        np.testing.assert_allclose(answers[0][1], before[1], rtol=1e-3)
    os._exit(0)

for in_thread in (False, True):
    child = os.fork()
    if child == 0:
        try:
            run_child(in_thread)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert status == 0, (in_thread, status)
answer()
print(torch.get_num_threads())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.parametrize("parent", ["warm", "cold"])
def test_a_child_forked_after_load_answers_and_the_parent_keeps_its_threads(parent: str, untrained: Path) -> None:
    assert python(FORK, untrained, parent) == "2"


APP = """
import json
import numpy as np
from cxrtool import Classifier
from cxrtool.settings import RuntimeSettings

classifier = Classifier.load("model.safetensors", RuntimeSettings(backend="torch", precision="fp32"))
image = np.random.default_rng(0).integers(0, 255, (96, 96)).astype(np.uint8)
expected = classifier.predict(image).probabilities

def application(environ, start_response):
    found = classifier.predict(image).probabilities
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(max(abs(found[name] - expected[name]) for name in found)).encode()]
"""


def test_gunicorn_with_preload_answers(untrained: Path, tmp_path: Path) -> None:
    pytest.importorskip("gunicorn")
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "model.safetensors").symlink_to(untrained)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "gunicorn", "--preload", "--workers", "2", "--bind", f"127.0.0.1:{port}"]
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(
            [*command, "--timeout", "60", "app:application"], cwd=tmp_path, env=ENVIRONMENT, stdout=log, stderr=log
        )
    try:
        for _ in range(4):
            assert _get(port, server) < 1e-5
    finally:
        server.terminate()
        server.wait(30)


def _get(port: int, server: subprocess.Popen[bytes]) -> float:
    for _ in range(600):
        assert server.poll() is None
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            connection.request("GET", "/")
            return float(json.loads(connection.getresponse().read()))
        except ConnectionRefusedError:
            time.sleep(0.1)
        finally:
            connection.close()
    raise AssertionError("the server does not listen")


def test_an_engine_with_threads_of_its_own_is_refused_in_a_child() -> None:
    LoadedIn("OpenVINO").check()
    with pytest.raises(CxrError, match="loaded before a fork cannot run in the child with OpenVINO") as caught:
        LoadedIn("OpenVINO", process=1).check()
    assert "--preload" in caught.value.advice


THREADS = """
import sys, torch
from cxrtool.engines.device import choose_runtime
from cxrtool.settings import RuntimeSettings
choose_runtime(RuntimeSettings(threads=sys.argv[1]))
print(torch.get_num_threads())
"""


def test_the_setting_sets_the_threads_of_torch() -> None:
    assert python(THREADS, 3) == "3"
    assert python(THREADS, 1) == "1"
    assert python(THREADS, "auto") == "2"  # OMP_NUM_THREADS


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="affinity cannot be set")
def test_automatic_threads_are_at_most_the_processors_of_the_process() -> None:
    script = "import os; os.environ.pop('OMP_NUM_THREADS'); import torch; torch.set_num_threads(4)\n"
    script += "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    assert python(script + THREADS, "auto") == "1"


@pytest.mark.parametrize("value", ["0", "257", "many", "1.5"])
def test_other_numbers_are_refused(value: str) -> None:
    with pytest.raises(ValueError, match="use auto or a number from 1 to 256"):
        RuntimeSettings(threads=value)  # type: ignore[arg-type]


def control_groups(folder: Path, listed: str, files: dict[str, str]) -> float | None:
    (folder / "cgroup").write_text(listed)
    for name, text in files.items():
        path = folder / "fs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return cgroup_share(folder / "cgroup", folder / "fs")


def test_the_share_of_control_groups(tmp_path: Path) -> None:
    cases: list[tuple[str, dict[str, str], float | None]] = [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "400000 100000", "cpu.max": "max 1"}, 4.0),
        ("0::/host/pod\n", {"cpu.max": "50000 100000\n"}, 0.5),  # the path is that on the host
        (
            "4:cpu,cpuacct:/docker/x\n3:memory:/docker/x\n",
            {"cpu/docker/x/cpu.cfs_quota_us": "200000\n", "cpu/docker/x/cpu.cfs_period_us": "100000\n"},
            2.0,
        ),
        ("4:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ("nonsense\n", {"cpu.max": "what\n"}, None),
    ]
    for number, (listed, files, share) in enumerate(cases):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert control_groups(folder, listed, files) == share, listed
    assert cgroup_share(tmp_path / "none", tmp_path) is None


def test_a_share_of_time_limits_the_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    for share, processors in ((0.5, 1), (1.5, 2), (None, 8), (100.0, 8)):
        monkeypatch.setattr("cxrtool.processors.cgroup_share", lambda share=share: share)
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
        assert usable_processors() == processors


@pytest.mark.parametrize(("load", "expected"), [(0.9, SHORT_SPIN), (1.1, SLEEP)])
def test_openmp_spins_shortly_on_idle_cores_and_not_on_busy_ones(
    load: float, expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 9.0, 9.0))
    monkeypatch.setattr(app, "usable_processors", lambda: 2)
    environment = {"A": "b"}
    limit_spinning(environment)
    assert environment == {"A": "b", **expected}
    own = {"OMP_WAIT_POLICY": "ACTIVE"}
    limit_spinning(own)
    assert own == {"OMP_WAIT_POLICY": "ACTIVE"}
