"""Measurements behind precision ``auto``: whether bfloat16 is faster here, and how much it changes a model's output.

Each is measured once and stored in the user's cache folder.
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
"""``auto`` chooses bf16 if it is at least this many times as fast as fp32."""
CLOSE_ENOUGH = 0.02
"""Largest difference in probability from fp32 at which ``auto`` chooses bf16."""
_CACHE_NAME = "precision.json"


def cache_folder() -> Path | None:
    """Return ``$XDG_CACHE_HOME/cxrtool``, or ``~/.cache/cxrtool``; None for a user who has no home folder."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cxrtool"
    except RuntimeError:  # no HOME, and a user whom the system does not know, as in many containers
        return None


def bf16_is_faster(device: torch.device) -> bool:
    """Whether convolutions under bf16 autocast are at least `WORTHWHILE` times as fast as in fp32 on this device.

    A GPU has bf16 units from compute capability 8.0. A CPU is timed for about 0.1 s on one layer of the network, and
    the result is stored: CPUs without bf16 units emulate them and are several times slower.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    key = f"bf16 pays: {_processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    ratio = _load(key)
    if not isinstance(ratio, float):
        ratio = speed_ratio()
        _store(key, ratio)
    return ratio >= WORTHWHILE


def speed_ratio() -> float:
    """Return seconds in fp32 divided by seconds in bf16, each the best of three."""
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


def load_difference(weights_sha256: str, device: torch.device, backend: str) -> float | None:
    """Return the stored difference of this model on this kind of device and backend; None if there is none."""
    stored = _load(_model_key(weights_sha256, device, backend))
    return stored if isinstance(stored, float) else None


def store_difference(weights_sha256: str, device: torch.device, backend: str, difference: float) -> None:
    """Store the largest difference in probability between bf16 and fp32."""
    _store(_model_key(weights_sha256, device, backend), difference)


def _model_key(weights_sha256: str, device: torch.device, backend: str) -> str:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return f"bf16 difference: {weights_sha256}, {name}, {backend} {version(backend)}"


def current_machine() -> dict[str, str]:
    """Return the processor and the version of Python, on which the last bits of results may depend."""
    return {"processor": _processor(), "python": platform.python_version()}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "flags"))]
    # Cloud providers give several processors the same name; their flags differ.
    return f"{names[0]} {zlib.crc32(names[-1].encode()):08x}" if names else platform.machine()


def _load(key: str) -> object:
    folder = cache_folder()
    if folder is None:
        return None
    try:
        content = json.loads((folder / _CACHE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content.get(key) if isinstance(content, dict) else None


def _store(key: str, value: float) -> None:
    folder = cache_folder()
    if folder is None:
        return
    path = folder / _CACHE_NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        content = {}
    known = content if isinstance(content, dict) else {}
    try:
        write_json(path, known | {key: value})
    except CxrError as error:
        log.debug("the measurement was not stored: %s", error)
