"""The command ``cxr``: its subcommands, and how an error becomes a message and an exit code."""

import errno
import os
import signal
import sys
import traceback
from collections.abc import MutableMapping, Sequence
from contextlib import suppress
from types import FrameType
from typing import NoReturn

import typer

from cxrtool.cli import (
    bench,
    cache,
    calibrate,
    check_data,
    compare,
    config,
    console,
    demo,
    errors_,
    eval_,
    explain,
    export,
    import_,
    info,
    localize,
    merge,
    phantom,
    power,
    predict,
    push,
    report,
    reproduce,
    split,
    train,
    tune,
    verify,
)
from cxrtool.cli.command import Command, Group
from cxrtool.errors import CxrError, is_out_of_memory
from cxrtool.processors import usable_processors

app = typer.Typer(
    name="cxr",
    help=(
        "Train, evaluate, tune, apply and explain a DenseNet121 that detects five findings in chest radiographs.\n\n"
        "Research software, not a medical device. Start with: cxr demo"
    ),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"]},
)
SHORT_SPIN = {"GOMP_SPINCOUNT": "10000"}
"""On idle cores: as fast as torch's default, and a third less processor time (docs/measurements/speed.md)."""
SLEEP = {"OMP_WAIT_POLICY": "PASSIVE"}
"""On busy cores: half of the processor time of the short spin, and of the wall time too."""
COMMANDS = {
    "Start here": (demo, phantom),
    "Data": (check_data, split, cache),
    "Training": (train, tune, calibrate),
    "Evaluation": (eval_, compare, power, errors_, localize, report),
    "Use": (predict, merge, explain, export),
    "Models": (info, verify, reproduce, import_, push),
    "This program": (config, bench),
}
"""The commands by heading of the help."""
for heading, modules in COMMANDS.items():
    for module in modules:
        module.register(app)
        registered = app.registered_commands[-1]
        registered.cls, registered.rich_help_panel = Command, heading


class _Terminated(BaseException):
    """Raised when SIGTERM arrives."""


def _on_sigterm(_number: int, _frame: FrameType | None) -> NoReturn:
    raise _Terminated


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", "-V"),
    debug: bool = typer.Option(False, "--debug"),
) -> None:
    # `main` handles both options; they are declared here for the completion, and described in help_text.py.
    del version, debug


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run ``cxr`` and exit with its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    given = [argument for argument in given if argument != "--debug"]
    if given[:1] == ["help"]:  # cxr help COMMAND
        given = [*given[1:], "--help"]
    if given in (["--version"], ["-V"]):
        from cxrtool import __version__

        console.say(f"cxr {__version__}")
        raise SystemExit(0)
    console.ARGUMENTS.set(tuple(given))
    console.show_logs(debug)
    limit_spinning(os.environ)
    signal.signal(signal.SIGTERM, _on_sigterm)
    code = _run(given, debug)
    with suppress(_Terminated):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # nothing is left to be ended cleanly
    raise SystemExit(_flush(code))


def limit_spinning(environ: MutableMapping[str, str]) -> None:
    """Set how OpenMP's threads wait for work, unless the user has set it.

    By default they spin for milliseconds between two layers and take processor time from others, or from the reading
    threads. OpenMP reads this once, when torch is imported.
    """
    if any(name in environ for name in ("OMP_WAIT_POLICY", "KMP_BLOCKTIME", "GOMP_SPINCOUNT")):
        return
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0  # Windows has none
    environ.update(SLEEP if load > usable_processors() / 2 else SHORT_SPIN)


def _run(arguments: list[str], debug: bool) -> int:
    try:
        result = typer.main.get_command(app).main(args=arguments, prog_name="cxr", standalone_mode=False)
        code = result if isinstance(result, int) else 0
        if code == 130:
            console.hint("stopped by SIGINT")
        return code
    except CxrError as error:
        if debug:
            traceback.print_exc()
        if not error.said:
            console.print_error(error)
        return error.exit_code
    except _Terminated:
        console.hint("stopped by SIGTERM")
        return 143
    except (KeyboardInterrupt, typer.Abort):
        console.hint("stopped by SIGINT")
        return 130
    except (BrokenPipeError, SystemExit) as error:
        if isinstance(error, SystemExit) and not isinstance(error.__context__, BrokenPipeError):
            raise  # typer turns some broken pipes into SystemExit(1)
        _discard_stdout()
        return 0  # the reader, such as `head`, closed the pipe: not an error
    except Exception as error:  # noqa: BLE001 - last chance to turn an error into a message
        return _report(error, debug)


def _report(error: Exception, debug: bool) -> int:
    if type(error).__name__ == "NoArgsIsHelpError":
        console.err().print(str(error), markup=False)
        return 2
    if hasattr(error, "format_message"):  # a usage error of typer's parser
        context = getattr(error, "ctx", None)
        help_of = context.command_path if context else "cxr"
        console.print_error(CxrError(error.format_message(), f"See {help_of} --help."))
        return 2
    if debug:
        traceback.print_exc()
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
        if error.filename is None:  # stdout: flushing it at exit would fail and be reported again
            _discard_stdout()
        console.print_error(_disk_full(error))
        return 1
    if is_out_of_memory(error):
        console.print_error(CxrError("out of memory", "Use a smaller --batch-size or --image-size."))
        return 1
    name = type(error).__name__
    console.print_error(
        CxrError(f"unexpected {name}: {error}", "Please report it with the output of the same command with --debug.")
    )
    return 1


def _discard_stdout() -> None:
    """Redirect stdout to the null device, so that flushing it at exit raises nothing."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _flush(code: int) -> int:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _discard_stdout()
    except OSError as error:
        _discard_stdout()
        console.print_error(_disk_full(error))
        return 1
    return code


def _disk_full(error: OSError) -> CxrError:
    where = error.filename or "the output"
    return CxrError(f"cannot write {where}: {error.strerror}", "Free some disk space, then run the command again.")


if __name__ == "__main__":
    main()
