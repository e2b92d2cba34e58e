"""Inputs of a command: radiographs (files, folders, or ``-`` for a list on stdin) and the model."""

import sys
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from cxrtool.cli import console
from cxrtool.errors import RequestError
from cxrtool.resolved_settings import ResolvedSettings

if TYPE_CHECKING:
    from cxrtool.model.bundle import Bundle
    from cxrtool.predict.classifier import Classifier


_AHEAD = 32
"""Images that a folder is searched for ahead of each one that is given out."""


class InputPaths(Iterator[Path]):
    """The path of each radiograph, in the order given; files of a folder are sorted. Folders and stdin are read lazily.

    What a folder has besides radiographs is counted on stderr. Going on raises RequestError at a folder without image.
    """

    def __init__(self, inputs: Sequence[str | Path], recursive: bool) -> None:
        self._recursive = recursive
        self._known = 0
        self._unopened = len(inputs)
        self._paths = self._open(inputs)

    def __next__(self) -> Path:
        """Return the next path."""
        return next(self._paths)

    @property
    def total(self) -> int | None:
        """Number of all radiographs; None before the last folder was searched, and with a list on stdin."""
        return None if self._unopened else self._known

    def _open(self, inputs: Sequence[str | Path]) -> Iterator[Path]:
        for given in map(Path, inputs):
            if str(given) == "-":
                if isinstance(sys.stdin, TextIOWrapper):  # file names need not be UTF-8
                    sys.stdin.reconfigure(errors="surrogateescape")
                yield from _listed_paths(sys.stdin)
                continue
            if given.is_dir():
                yield from self._of_folder(given)
            else:
                self._unopened -= 1
                self._known += 1
                yield given

    def _of_folder(self, folder: Path) -> Iterator[Path]:
        """Yield the images of a folder while it is still searched; what each turn finds ahead of them is counted.

        So the first needs no list of all, and their number is known long before the last is read.
        """
        from cxrtool.data.listing import Listing, images_in

        left_out: Counter[str] = Counter()
        found = images_in(folder, self._recursive, left_out)
        waiting: deque[str] = deque()
        empty = True
        while True:
            more = list(islice(found, _AHEAD))
            self._known += len(more)
            waiting += more
            if len(more) < _AHEAD:
                break
            empty = False
            yield Path(waiting.popleft())
        self._unopened -= 1
        if left_out:
            console.hint(f"{folder}: left out {Listing(left_out=left_out).describe()}")
        if empty and not waiting:
            advice = "Check the folder." if self._recursive else "Add --recursive to search its subfolders too."
            raise RequestError(f"folder {folder} contains no image", advice)
        while waiting:
            yield Path(waiting.popleft())


def _listed_paths(lines: Iterable[str]) -> Iterator[Path]:
    """Yield the path in each line that is not blank; a byte order mark, which Windows editors put first, is no part."""
    for number, line in enumerate(lines):
        path = line.rstrip("\r\n")
        if number == 0:
            path = path.removeprefix("\ufeff")
        if path.strip():
            yield Path(path)


def load_classifier(
    resolved: "ResolvedSettings", thresholds: str | None, raw: bool = False, for_maps: bool = False
) -> "Classifier":
    """Load the model that the settings choose.

    Args:
        resolved: settings.
        thresholds: numbers or a file that replace the bundle's thresholds; None keeps those.
        raw: as in `Classifier.load`.
        for_maps: use torch whatever the backend, because heatmaps need gradients.
    """
    from cxrtool.engines.export import with_export
    from cxrtool.evaluation.threshold_files import parse_thresholds
    from cxrtool.predict.classifier import Classifier

    runtime = resolved.settings.runtime.for_maps if for_maps else resolved.settings.runtime
    with with_export(opened_model(resolved), runtime) as bundle:
        given = None if thresholds is None else parse_thresholds(thresholds, bundle.header.labels)
        return Classifier.load(bundle, runtime, thresholds=given, raw=raw)


@contextmanager
def model_to_run(resolved: ResolvedSettings) -> Iterator["Bundle"]:
    """The chosen model, opened, with the export that the chosen backend reads; it is made where need be.

    Raises:
        ModelError: there is none, or it cannot be used.
        RequestError: the backend cannot do what is asked for.
    """
    from cxrtool.engines.export import with_export

    with with_export(opened_model(resolved), resolved.settings.runtime) as bundle:
        yield bundle


def opened_model(resolved: ResolvedSettings) -> "Bundle":
    """The chosen model, opened.

    Raises:
        ModelError: there is none, or it cannot be used.
    """
    from cxrtool.model.bundle import open_bundle

    return open_bundle(chosen_model(resolved))


def chosen_model(resolved: ResolvedSettings) -> Path:
    """Return the bundle of ``--model``, else of CXR_MODEL or the config file, else of the newest run.

    Raises:
        ModelError: no bundle is found.
    """
    from cxrtool.model.resolve import resolve_model

    settings = resolved.settings
    path = resolve_model(settings.model, settings.runs)
    source = resolved.sources.get("model", f"the newest run in {settings.runs}")
    if source != "command line":
        console.hint(f"model: {path} ({source})")
    return path
