"""The radiographs a command is given: files, folders, or ``-`` for a list on stdin."""

import sys
from collections.abc import Iterator
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING

from cxrtool.cli import console
from cxrtool.errors import RequestError
from cxrtool.settings import ResolvedSettings

if TYPE_CHECKING:
    from cxrtool.predict.classifier import Classifier


def input_paths(inputs: list[Path], recursive: bool) -> Iterator[Path]:
    """Every radiograph named, in order; a folder's are sorted; a list on stdin is read as it comes.

    Raises:
        RequestError: a folder holds no image.
    """
    from cxrtool.data.images import list_images

    for given in inputs:
        if str(given) == "-":
            if isinstance(sys.stdin, TextIOWrapper):  # a name that is no UTF-8 is a name too
                sys.stdin.reconfigure(errors="surrogateescape")
            yield from (Path(line.rstrip("\r\n")) for line in sys.stdin if line.strip())
            continue
        found = list_images([given], recursive)
        if not found and given.is_dir():
            raise RequestError(f"folder {given} holds no image", "Add --recursive to look in its folders too.")
        yield from found


def load_classifier(
    resolved: "ResolvedSettings", thresholds: str | None, raw: bool = False, for_maps: bool = False
) -> "Classifier":
    """The chosen model with the thresholds given, as text or file, instead of its own; `raw` as in `Classifier`.

    `for_maps` keeps it with torch, whatever the backend.
    """
    from cxrtool.cli.inputs import chosen_model
    from cxrtool.evaluation.thresholds import parse_thresholds
    from cxrtool.predict.classifier import Classifier

    given = None if thresholds is None else parse_thresholds(thresholds)
    runtime = resolved.settings.runtime
    return Classifier.load(chosen_model(resolved), runtime.for_maps if for_maps else runtime, thresholds=given, raw=raw)


def chosen_model(resolved: ResolvedSettings) -> Path:
    """The bundle file of ``--model``, else of CXR_MODEL or the config, else the newest run's.

    Raises:
        ModelError: there is none.
    """
    from cxrtool.model.resolve import resolve_model

    settings = resolved.settings
    path = resolve_model(settings.model, settings.runs)
    source = resolved.sources.get("model", f"the newest run in {settings.runs}")
    if source != "command line":
        console.hint(f"model: {path} ({source})")
    return path
