"""Training on a GPU; run where there is one."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from cxrtool.data.preprocessing import Preprocessing
from cxrtool.engines.device import Runtime
from cxrtool.errors import is_out_of_memory
from cxrtool.model.densenet import build_network
from cxrtool.training.augment import draw_changes
from cxrtool.training.feed import StepArrays, on_device
from cxrtool.training.loop import train
from cxrtool.training.processes import ALONE
from cxrtool.training.step import TrainingStep
from tests_support import tiny_training

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")


def losses(record: bool, bf16: bool) -> list[float]:
    """Train ten steps on the same images; the seventh batch is smaller."""
    runtime = Runtime(torch.device("cuda"), bf16, pin_memory=True)
    network = runtime.place(build_network(Preprocessing(image_size=64), "none", 0)).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4, fused=True, capturable=True)
    step = TrainingStep(network, optimizer, runtime, ALONE, clip=1.0, record=record)
    rng = np.random.default_rng(0)

    def steps():  # type: ignore[no-untyped-def]
        for number in range(10):
            count = 5 if number == 6 else 8
            yield StepArrays(
                rng.integers(0, 256, (count, 1, 64, 64), dtype=np.uint8),
                (rng.random((count, 5)) > 0.5).astype(np.float32),
                rng.random((count, 5)) > 0.2,
                draw_changes(0, number, np.arange(count)),
            )

    return [float(step(block)) for block in on_device(steps(), runtime) if block is not None]


@pytest.mark.parametrize("bf16", [False, True])
def test_a_recorded_step_does_what_a_step_does(bf16: bool) -> None:
    """Adam's signs of gradients near 0 differ between two runs of any kind, because the GPU adds in any order."""
    plain, recorded = losses(False, bf16), losses(True, bf16)
    assert recorded[:4] == pytest.approx(plain[:4], abs=2e-2 if bf16 else 1e-4)  # the fourth is the first replayed one
    assert recorded == pytest.approx(plain, abs=0.1)


def test_a_run_on_a_gpu_is_recorded_as_such(few: Path, tmp_path: Path) -> None:
    resolved = tiny_training(few, train__epochs=3, train__batch_size=4).changed("test", **{"runtime.device": "auto"})
    result = train(resolved, tmp_path / "run")
    about = json.loads((tmp_path / "run" / "model.json").read_text())
    assert about["device"].startswith("cuda")
    assert about["tf32"] is False
    assert all(np.isfinite(row.train_loss) for row in result.history)


def test_a_gpu_that_is_full_says_that_memory_has_run_out() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**45, dtype=torch.uint8, device="cuda")
    assert is_out_of_memory(caught.value)
