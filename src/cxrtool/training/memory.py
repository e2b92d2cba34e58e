"""Search for a batch size that fits after training has run out of memory.

On a CPU each try runs in its own process, because the failed step has left this one's memory fragmented.
"""

import gc
import subprocess
import sys

import numpy as np
import torch

from cxrtool.data.preprocessing import Preprocessing
from cxrtool.engines.device import Runtime
from cxrtool.errors import is_out_of_memory
from cxrtool.model.densenet import ChestNet
from cxrtool.training.loss import masked_bce

_MARGIN = 1.1
_RESERVE = 512 * 2**20
"""Bytes kept free for what a run does beside its steps: reading threads, validation, the bundle's own check."""


def batch_that_fits(batch_size: int, image_size: int, runtime: Runtime) -> int:
    """Return the largest half, quarter, ... of `batch_size` with which a step succeeds, or 0 if 2 images do not fit."""
    size = batch_size // 2
    while size >= 2:
        if _fits(round(size * _MARGIN), image_size, runtime):
            return size
        size //= 2
    return 0


def _fits(images: int, image_size: int, runtime: Runtime) -> bool:
    if runtime.device.type == "cpu":
        arguments = [images, image_size, torch.get_num_threads(), int(runtime.bf16), int(runtime.channels_last)]
        command = [sys.executable, "-m", "cxrtool.training.memory", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    gc.collect()
    torch.cuda.empty_cache()
    try:
        make_steps(images, image_size, runtime)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return False
    return True


def make_steps(images: int, image_size: int, runtime: Runtime) -> None:
    """Run two training steps on blank images; two, because the optimizer allocates memory in the first."""
    network = runtime.place(ChestNet(Preprocessing(image_size=image_size)))
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    pixels = np.zeros((images, 1, image_size, image_size), dtype=np.uint8)
    for _ in range(2):
        with torch.autocast(runtime.device.type, torch.bfloat16, enabled=runtime.bf16):
            logits = network(runtime.tensor(pixels))
        targets = torch.zeros_like(logits)
        optimizer.zero_grad(set_to_none=True)
        masked_bce(logits, targets, targets == 0).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


if __name__ == "__main__":
    count, side, threads, bf16, channels_last = map(int, sys.argv[1:])
    torch.set_num_threads(threads)
    reserve = np.empty(_RESERVE, dtype=np.uint8)
    make_steps(count, side, Runtime(torch.device("cpu"), bool(bf16), bool(channels_last)))
