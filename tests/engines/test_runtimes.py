"""Side effects of third-party runtimes."""

import importlib.util
from pathlib import Path

import pytest

from warm import Warm


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="openvino is not installed")
def test_a_signal_after_two_openvino_engines_does_not_crash(warm: Warm, tmp_path: Path) -> None:
    """Freeing engines in the order of creation left a dangling signal stack on a CPU with AMX."""
    program = """
import gc, os, signal, sys
from pathlib import Path
import numpy, openvino, openvino.opset13 as opset
from cxrtool.choices import Precision
from cxrtool.engines.runtimes import OpenVinoEngine
pixels = opset.parameter([1, 4], numpy.float32)
openvino.save_model(openvino.Model([opset.relu(pixels)], [pixels]), "tiny.xml")
first = OpenVinoEngine(Path("tiny.xml"), Precision.FP32)
second = OpenVinoEngine(Path("tiny.xml"), Precision.FP32)
del first
gc.collect()
del second
gc.collect()
signal.signal(signal.SIGUSR1, lambda *_: None)
os.kill(os.getpid(), signal.SIGUSR1)
sys.exit(77)
"""
    ended = warm.run("--version", cwd=tmp_path, patch=program)
    assert ended.code == 77, ended
