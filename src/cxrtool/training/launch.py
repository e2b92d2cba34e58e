"""Starting one training as several processes of this machine, by torchrun's own launcher."""

import logging
import os
import signal
import sys
import uuid
from collections.abc import Sequence

import torch

from cxrtool.choices import Device
from cxrtool.errors import CxrError, RequestError
from cxrtool.processors import usable_processors
from cxrtool.training.processes import LAUNCHED


def launch(arguments: Sequence[str], processes: int, max_restarts: int, device: Device) -> int:
    """Run ``cxr`` with these arguments in several processes that train together, and wait for them.

    A signal to this process goes to all of them, which then save and end; torchrun kills those that take longer than
    half a minute.

    Args:
        arguments: arguments of ``cxr``, beginning with the command.
        processes: number of processes.
        max_restarts: how often all are started again after one has failed or was killed.
        device: where they train. On a CPU the processors are divided among them.

    Returns:
        The exit code: 0, that of the process that failed first, or 128 plus the number of a signal.

    Raises:
        RequestError: this machine has fewer GPUs than processes.
        CxrError: a process was killed.
    """
    gpus = torch.cuda.device_count()
    if device is not Device.CPU and gpus < processes:
        raise RequestError(
            f"--gpus {processes}: this machine has {gpus} GPUs",
            f"Use --gpus {gpus}." if gpus > 1 else "With --device cpu, --gpus is the number of processes on the CPU.",
        )
    try:
        from torch.distributed.elastic.multiprocessing import SignalException
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
        from torch.distributed.launcher.api import LaunchConfig, elastic_launch
    except ImportError as error:  # torchrun's launcher needs modules that Python on Windows lacks
        raise RequestError(
            f"--gpus needs torchrun's launcher, which cannot be imported here ({error})", "Leave out --gpus."
        ) from None
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, usable_processors() // processes)))
    os.environ[LAUNCHED] = "1"
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=max_restarts,
    )
    logging.disable(logging.ERROR)  # torchrun's own lines: the processes say what is wrong
    try:
        elastic_launch(config, sys.executable)("-m", "cxrtool", *arguments)
    except SignalException as error:
        return 128 + int(error.sigval)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode < 0:
            name = signal.Signals(-failure.exitcode).name
            raise CxrError(
                f"process {rank} of the training was killed by {name}",
                "The run can be continued with --resume. --max-restarts N does so by itself.",
            ) from error
        return int(failure.exitcode)
    finally:
        logging.disable(logging.NOTSET)
    return 0
