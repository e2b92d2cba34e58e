"""``cxr train``"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cxrtool.cells import cell
from cxrtool.choices import Device
from cxrtool.cli import console
from cxrtool.cli.help_text import MACHINE, OUTPUT
from cxrtool.cli.options import CACHE, LIMITS, RUNTIME, SHEETS, JsonOption, given_on_command_line, settings_options
from cxrtool.cli.signals import graceful_stop
from cxrtool.errors import RequestError
from cxrtool.resolved_settings import ResolvedSettings, load_settings
from cxrtool.text import counted

if TYPE_CHECKING:
    from cxrtool.training.loop import TrainResult


TRAINING = (
    "data.root",
    *SHEETS,
    "data.findings",
    "train.epochs",
    "train.image_size",
    "train.fit",
    "train.batch_size",
    "train.lr",
    "train.lr_head",
    "train.freeze",
    "train.init",
    "train.optimizer",
    "train.weight_decay",
    "train.clip_gradients",
    "train.pos_weight",
    "train.pos_weight_clip",
    "train.augment",
    "train.patience",
    "train.select_by",
    "data.views",
    "data.blank",
    "data.max_missing",
    "data.skip_unreadable",
    "data.i_know",
    "data.allow_outside",
    *CACHE,
    *RUNTIME,
    *LIMITS,
    "runtime.pin_memory",
    "runtime.matmul_precision",
    "runtime.cudnn_benchmark",
    "runtime.cuda_graphs",
)


@settings_options("train.policy", "train.seed", *TRAINING, "runs")
def train(
    resolved: ResolvedSettings,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Run folder to create. \\[default: a folder in runs/ named after time, policy, size and seed]",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    resume: Annotated[
        Path | None, typer.Option("--resume", help="Continue the run in this folder with its own settings.")
    ] = None,
    amp: Annotated[
        bool | None,
        typer.Option("--amp/--no-amp", help="Mixed precision or not: short for --precision bf16 or --precision fp32."),
    ] = None,
    gpus: Annotated[
        int | None,
        typer.Option(
            "--gpus",
            min=1,
            help="Train on so many GPUs of this machine, a process each; with --device cpu, so many processes.",
            rich_help_panel=MACHINE,
        ),
    ] = None,
    max_restarts: Annotated[
        int,
        typer.Option(
            "--max-restarts",
            min=0,
            help="With --gpus: go on from the last state so often after a process has failed.",
            rich_help_panel=MACHINE,
        ),
    ] = 0,
    json_output: JsonOption = False,
) -> None:
    """Train a model and keep its best epoch.

    \b
    cxr train --data CheXpert-v1.0-small --policy u-ignore
    cxr train --data CheXpert-v1.0-small --policy u-ignore,Atelectasis=u-ones --epochs 3
    cxr train --resume runs/20261124-101500_u-ignore_320px_seed0
    cxr train --data CheXpert-v1.0-small --gpus 8 --batch-size 512 --max-restarts 3
    """
    if amp is not None:
        resolved = resolved.changed("command line", **{"runtime.precision": "bf16" if amp else "fp32"})
    if resume is not None:
        resolved = _settings_of_run(resume, resolved)
        if out is not None:
            raise RequestError(
                "--out and --resume cannot be combined", "A resumed run stays in its folder: leave out --out."
            )
    if gpus is not None:
        raise typer.Exit(_launch(resolved, out, resume, gpus, max_restarts))
    result = _train(resolved, out, resume)
    if result is not None:
        _show(result, resolved.settings.data.root, json_output)


def _train(resolved: ResolvedSettings, out: Path | None, resume: Path | None) -> "TrainResult | None":
    """Train, alone or with the other processes that torchrun has started; return the result in the first of them."""
    import torch

    from cxrtool.training.loop import train as run_training
    from cxrtool.training.processes import join_processes, may_be_restarted, rank_of_process

    if may_be_restarted() and out is None and resume is None:
        raise RequestError("--max-restarts without --out", "Give --out, so that a restart finds the run.")
    first = rank_of_process() == 0
    if not first:
        _say_only_what_others_do_not_know()
    use_gpus = resolved.settings.runtime.device is not Device.CPU and torch.cuda.is_available()
    with (
        graceful_stop(quiet=not first) as stop,
        console.progress_bar(hidden=not first) as progress,
        join_processes(use_gpus) as processes,
    ):
        result = run_training(resolved, out, resume, progress, stop, processes=processes)
    return result if first else None


def _say_only_what_others_do_not_know() -> None:
    """Leave what all processes would say to the first one, but for images, of which each reads a share."""
    logging.getLogger("cxrtool").setLevel(logging.ERROR)
    logging.getLogger("cxrtool.data.batches").setLevel(logging.WARNING)


def _launch(resolved: ResolvedSettings, out: Path | None, resume: Path | None, gpus: int, max_restarts: int) -> int:
    from cxrtool.training.folder import run_name
    from cxrtool.training.launch import launch

    settings = resolved.settings
    arguments = without_options(console.ARGUMENTS.get(), ("--gpus", "--max-restarts"))
    if out is None and resume is None:
        arguments += ["--out", str(settings.runs / run_name(settings.train))]
    return launch(arguments, gpus, max_restarts, settings.runtime.device)


def without_options(arguments: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return arguments of a command line without these options, which take a value, and without their values."""
    kept, skip = [], False
    for argument in arguments:
        if skip:
            skip = False
        elif argument in names:
            skip = True
        elif argument.partition("=")[0] not in names:
            kept.append(argument)
    return kept


def _settings_of_run(run: Path, resolved: ResolvedSettings) -> ResolvedSettings:
    from cxrtool.training.folder import SETTINGS_NAME, settings_of_run

    settings_of_run(run)  # raises if the folder holds no run
    return load_settings(given_on_command_line(resolved), run / SETTINGS_NAME, environ={}, origin="command line")


def _show(result: "TrainResult", data: Path | None, json_output: bool) -> None:
    if json_output:
        console.print_json(_summary(result))
        return
    console.print_table(
        "epochs",
        ["epoch", "train loss", "valid loss", "valid AUROC", "valid AUPRC", "images/s", "best"],
        [
            [
                str(row.epoch),
                row.train_loss,
                row.valid_loss,
                row.valid_auroc,
                row.valid_auprc,
                cell(row.images_per_second, 1),
                "*" if row.epoch == result.best.epoch else "",
            ]
            for row in result.history
        ],
    )
    if result.unreadable:
        left_out = counted(len(result.unreadable), "unreadable image was", "unreadable images were")
        console.warn(f"{left_out} left out; see {result.run}/dataset.json")
    console.say(f"model: {result.bundle}")
    console.next_step("tune", "--data", data, "--model", result.run)


def _summary(result: "TrainResult") -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "run": str(result.run),
        "model": str(result.bundle),
        "best": asdict(result.best),
        "history": [asdict(row) for row in result.history],
        "seconds": result.seconds,
        "unreadable": list(result.unreadable),
    }


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("train")(train)
