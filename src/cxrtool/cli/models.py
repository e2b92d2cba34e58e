"""Which model a command uses, said on stderr when the user did not name it."""

from pathlib import Path

from cxrtool.cli import console as display
from cxrtool.settings import ResolvedSettings


def chosen_model(resolved: ResolvedSettings) -> Path:
    """The bundle file of ``--model``, else of CXR_MODEL or the config, else the newest run's.

    Raises:
        ModelError: there is none.
    """
    from cxrtool.model.bundle import resolve_model

    settings = resolved.settings
    path = resolve_model(settings.model, settings.runs)
    source = resolved.sources.get("model", f"the newest run in {settings.runs}")
    if source != "command line":
        display.hint(f"model: {path} ({source})")
    return path
