"""``cxr config``"""

import typer

from cxrtool.cli import console
from cxrtool.cli.options import JsonOption, settings_options
from cxrtool.resolved_settings import ResolvedSettings


@settings_options()
def config(
    resolved: ResolvedSettings,
    yaml_output: bool = typer.Option(False, "--yaml", help="Print YAML that --config reads."),
    json_output: JsonOption = False,
) -> None:
    """Print the effective settings and where each came from.

    The command line overrides CXR_* variables (CXR_TRAIN__EPOCHS=3), which override the YAML file, which overrides
    the defaults.

    \b
    cxr config
    cxr config --config my.yaml
    cxr config --yaml > my.yaml
    """
    if json_output:
        console.print_json({key: {"value": value, "source": source} for key, value, source in resolved.rows()})
    elif yaml_output:
        console.write(resolved.to_yaml())
    else:
        rows = [[key, "" if value is None else str(value), source] for key, value, source in resolved.rows()]
        console.print_table("settings", ["setting", "value", "source"], rows)


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("config")(config)
