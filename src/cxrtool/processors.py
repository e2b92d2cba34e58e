"""How many processors this process may use, and how many threads read images on them."""

import math
import os
from pathlib import Path


def usable_processors() -> int:
    """Return the number of processors that this process may use, which may be fewer than the machine has.

    Counts its affinity and, on Linux, the share of time that its control groups allow, as containers have. The
    processes that torchrun has started on a machine divide its processors.
    """
    try:
        processors = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        processors = os.cpu_count() or 1
    share = cgroup_share()
    if share is not None:
        processors = min(processors, math.ceil(share))
    return max(1, processors // processes_here())


def processes_here() -> int:
    """Return how many processes torchrun has started on this machine; 1 without torchrun."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def cgroup_share(groups: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Return the processors' worth of time that the control groups of this process allow; None without a limit.

    Args:
        groups: file that lists the groups of the process, version 1 and 2.
        mount: folder where the control groups are mounted.
    """
    try:
        lines = groups.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    shares = []
    for line in lines:
        _, controllers, path = (line + "::").split(":")[:3]
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = mount / "cpu" if controllers else mount
        read = _share_v1 if controllers else _share_v2
        inner = Path(path.lstrip("/"))
        # A limit of any group above holds too. In a container the path may be that on the host, which is not mounted.
        shares += [read(top / folder) for folder in (inner, *inner.parents, Path())]
    return min((share for share in shares if share is not None), default=None)


def _share_v2(folder: Path) -> float | None:
    try:
        quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()[:2]
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _share_v1(folder: Path) -> float | None:
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text(encoding="utf-8"))
        period = int((folder / "cpu.cfs_period_us").read_text(encoding="utf-8"))
        return quota / period if quota > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None


def automatic_workers(processors: int) -> int:
    """Return the number of reading threads for this many processors, from 2 to 16.

    Two threads hide a slow disk even on one processor. More than 16 bring nothing, because everything but the decoding
    holds Python's global lock.
    """
    return min(max(processors, 2), 16)
