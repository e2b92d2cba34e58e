"""When bfloat16 is worth it: where the hardware is faster in it, and where a model's probabilities hardly move.

Both are measured, once, and kept in the user's cache folder.
"""

import json
import logging
import os
import platform
import time
import zlib
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn

from cxrtool.errors import CxrError
from cxrtool.files import write_json

log = logging.getLogger(__name__)

WORTHWHILE = 1.2
"""bf16 must be so many times as fast as fp32 to be taken."""
CLOSE_ENOUGH = 0.02
"""Largest difference in probability that predict takes by itself."""
_CACHE_NAME = "precision.json"


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/cxrtool``, or ``~/.cache/cxrtool``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cxrtool"


def bf16_pays(device: torch.device) -> bool:
    """Whether convolutions under bf16 autocast are `WORTHWHILE` times as fast as in fp32 on this device.

    A GPU goes by its compute capability (8.0 has the units). A CPU is timed for about 0.1 s on one layer of the
    network, and the answer kept: CPUs without such units emulate them and are several times slower.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    key = f"bf16 pays: {_processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    kept = _recall(key)
    if not isinstance(kept, float):
        kept = speed_ratio()
        _keep(key, kept)
    return kept >= WORTHWHILE


def speed_ratio() -> float:
    """Seconds in fp32 over seconds in bf16, each the best of three."""
    layer = nn.Sequential(nn.Conv2d(256, 128, 1), nn.ReLU(), nn.Conv2d(128, 32, 3, padding=1))
    layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    values = torch.rand(4, 256, 40, 40).contiguous(memory_format=torch.channels_last)
    seconds = {}
    with torch.inference_mode():
        for bf16 in (False, True):
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                layer(values)
                seconds[bf16] = min(_seconds(layer, values) for _ in range(3))
    return seconds[False] / seconds[True]


def _seconds(layer: nn.Module, values: Tensor) -> float:
    began = time.perf_counter()
    layer(values)
    return time.perf_counter() - began


def kept_difference(weights_sha256: str, device: torch.device, backend: str) -> float | None:
    """What `keep_difference` was told of this model on this kind of device and backend, None if nothing."""
    kept = _recall(_model_key(weights_sha256, device, backend))
    return kept if isinstance(kept, float) else None


def keep_difference(weights_sha256: str, device: torch.device, backend: str, difference: float) -> None:
    """Remember the largest difference in probability between bf16 and fp32."""
    _keep(_model_key(weights_sha256, device, backend), difference)


def _model_key(weights_sha256: str, device: torch.device, backend: str) -> str:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return f"bf16 difference: {weights_sha256}, {name}, {backend} {version(backend)}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "flags"))]
    # Clouds call several processors by one name; their flags tell them apart.
    return f"{names[0]} {zlib.crc32(names[-1].encode()):08x}" if names else platform.machine()


def _recall(key: str) -> object:
    try:
        content = json.loads((cache_folder() / _CACHE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content.get(key) if isinstance(content, dict) else None


def _keep(key: str, value: float) -> None:
    path = cache_folder() / _CACHE_NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        content = {}
    known = content if isinstance(content, dict) else {}
    try:
        write_json(path, known | {key: value})
    except CxrError as error:
        log.debug("nothing is kept: %s", error)
