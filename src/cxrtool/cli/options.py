"""Command-line options generated from the settings, so that the two cannot drift apart.

A command names the settings it reads; each becomes an option whose name, type, choices, default and help come from
the field in `cxrtool.settings`. Options that the user gives override environment, file and defaults.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from cxrtool.choices import Precision, TorchPrecision
from cxrtool.cli.help_text import DATA as DATA_HEADING
from cxrtool.cli.help_text import MACHINE, OUTPUT, RARE, STATISTICS, TRAINING
from cxrtool.cli.help_text import MAPS as MAPS_HEADING
from cxrtool.resolved_settings import ResolvedSettings, load_settings, variable_of
from cxrtool.settings import Settings

JsonOption = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON document on stdout and nothing else.", rich_help_panel=OUTPUT),
]
PaperOption = Annotated[
    bool,
    typer.Option(
        "--paper",
        help="Also write tables, figures for print, methods and checklists for a paper.",
        rich_help_panel=OUTPUT,
    ),
]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="YAML file with settings; see `cxr config`.")
]
ReadersOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--readers",
        metavar="FILE...",
        help="CSV files of readers, with a column Study and 0 or 1 for each finding, to compare the model with.",
    ),
]

_NAMES = {"data.root": "--data", "tune.minimum": "--min", "tune.maximum": "--max"}


def settings_options(
    *keys: str, notes: Mapping[str, str] | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for each setting in `keys`, and ``--config``.

    The command receives the merged and checked settings, a `ResolvedSettings`, as its first argument.

    Args:
        keys: settings, such as ``train.lr``.
        notes: sentences to add to the help of an option, by key.

    Raises:
        ValueError: two options have the same name, so that one of them could not be given.
    """
    # int8 is a matter of OpenVINO, so it is offered only where the engine can be chosen.
    torch_only = "runtime.backend" not in keys
    flags = [_flag(key) for key in keys]
    twice = {flag for flag in flags if flags.count(flag) > 1}
    if twice:
        raise ValueError(f"two settings have the option {', '.join(sorted(twice))}")
    added_notes = dict(notes or {})

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        parameters = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
        options = {_parameter(key): key for key in keys}
        added = [_option(key, name, added_notes.get(key, ""), torch_only) for name, key in options.items()]
        added.append(inspect.Parameter("config", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=ConfigOption))

        @functools.wraps(command)
        def run(**arguments: Any) -> None:
            given = {key: arguments.pop(name) for name, key in options.items()}
            config = arguments.pop("config")
            command(load_settings(given, config, origin="command line"), **arguments)

        own = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
        everything = [*own, *added]
        run.__signature__ = inspect.Signature(everything)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in everything}
        run.setting_keys = frozenset(keys)  # type: ignore[attr-defined]
        return run

    return decorate


def given_on_command_line(resolved: ResolvedSettings) -> dict[str, object]:
    """Return the settings that came from the command line, by dotted key."""
    return {key: value for key, value, source in resolved.rows() if source == "command line"}


def arguments_for(command: Callable[..., None], settings: Mapping[str, object]) -> tuple[dict[str, str], list[str]]:
    """Return how a shell gives settings to a command: variables for those without an option, and arguments.

    Args:
        command: a command made by `settings_options`.
        settings: plain values by dotted key.
    """
    offered: frozenset[str] = command.setting_keys  # type: ignore[attr-defined]
    variables = {variable_of(key): str(value) for key, value in settings.items() if key not in offered}
    arguments: list[str] = []
    for key, value in settings.items():
        if key in offered:
            flag = _flag(key)
            arguments += [flag if value else f"--no-{flag[2:]}"] if isinstance(value, bool) else [flag, str(value)]
    return variables, arguments


def _parameter(key: str) -> str:
    return key.replace(".", "_")


def _field(key: str) -> FieldInfo:
    model: type[BaseModel] = Settings
    *parents, leaf = key.split(".")
    for parent in parents:
        section = model.model_fields[parent].annotation
        assert isinstance(section, type)
        model = section
    return model.model_fields[leaf]


def _flag(key: str) -> str:
    return _NAMES.get(key, "--" + key.rpartition(".")[2].replace("_", "-"))


def _option(key: str, name: str, note: str, torch_only: bool) -> inspect.Parameter:
    field = _field(key)
    kind = _plain_type(field.annotation)
    if kind is Precision and torch_only:
        kind = TorchPrecision
    flag = _flag(key)
    declaration = f"{flag}/--no-{flag[2:]}" if kind is bool else flag
    info = typer.Option(
        declaration,
        help=f"{_help(key, field)} {note}".rstrip(),
        show_default=False,
        case_sensitive=False,
        rich_help_panel=_heading(key),
    )
    annotation: object = Annotated[kind | None, info]  # type: ignore[valid-type]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _plain_type(annotation: Any) -> type:
    if any(get_origin(part) is Literal for part in get_args(annotation)):
        return str  # a number or a word: the settings decide which
    options = [part for part in get_args(annotation) if part is not type(None)]
    if options:
        return _plain_type(options[0])
    assert isinstance(annotation, type)
    return annotation if issubclass(annotation, (StrEnum, bool, int, float, Path)) else str


def _heading(key: str) -> str | None:
    if key in _RARELY_NEEDED:
        return RARE
    return None if key in ("runtime.strict", "runtime.window") else _HEADINGS.get(key.partition(".")[0])


def _help(key: str, field: FieldInfo) -> str:
    """Return the field's description with its default, or with what its last sentence gives after "If not given"."""
    assert field.description, f"setting {key} needs a description"
    text, given, fallback = field.description.partition(" If not given: ")
    default = fallback.removesuffix(".") if given else field.default
    if isinstance(default, bool):
        default = "on" if default else "off"
    return text if default is None else f"{text} \\[default: {default}]"


_HEADINGS = {
    "data": DATA_HEADING,
    "train": TRAINING,
    "runtime": MACHINE,
    "eval": STATISTICS,
    "explain": MAPS_HEADING,
    "runs": OUTPUT,
}
_RARELY_NEEDED = {
    "data.blank",
    "data.max_missing",
    "data.i_know",
    "data.allow_outside",
    "train.clip_gradients",
    "train.pos_weight_clip",
    "eval.draw_seed",
    "eval.confidence",
    "explain.scales",
    "runtime.channels_last",
    "runtime.pin_memory",
    "runtime.matmul_precision",
    "runtime.cudnn_benchmark",
    "runtime.max_megapixels",
    "runtime.max_file_mib",
}
LIMITS = ("runtime.max_megapixels", "runtime.max_file_mib")
"""Upper limits on input images."""
SHEETS = ("data.sheet", "data.columns", "data.labels", "data.layout")
"""Where the rows of each split are, and what their columns mean."""
ROWS = (*SHEETS, "data.views", "data.blank", "data.max_missing", "data.i_know", "data.allow_outside", *LIMITS)
"""Data settings of every command that reads a split."""
DATA = (*ROWS, "data.skip_unreadable")
"""Data settings of commands that score a split."""
CACHE = ("data.cache", "data.cache_dir")
"""Pixel cache, for commands that need only the pixels that the network sees."""
READING = ("runtime.strict", "runtime.window", *LIMITS)
"""How single radiographs are read."""
MAPS = ("explain.layer", "explain.flip", "explain.scales", "explain.smooth")
"""Settings that every heatmap method has."""
BOOTSTRAP = ("eval.draws", "eval.draw_seed", "eval.confidence")
"""How patients are resampled for intervals."""
RUNTIME = ("runtime.device", "runtime.precision", "runtime.channels_last", "runtime.workers", "runtime.threads")
"""Machine settings of every command that runs the network."""
ENGINE = ("runtime.backend", *RUNTIME)
"""Machine settings of commands that run the network forwards only."""
