"""Which bundle a run folder, file or setting means."""

from pathlib import Path

from cxrtool.errors import ModelError
from cxrtool.model.bundle import BUNDLE_NAME, Bundle, open_bundle, read_header

Model = Bundle | str | Path
"""A model as functions take it: opened, or a run folder or bundle file, which is then opened once."""


def open_model(model: Model) -> Bundle:
    """The bundle that `model` names, opened; as it is where it is opened already.

    Raises:
        ModelError: there is none, or it cannot be used.
    """
    return model if isinstance(model, Bundle) else open_bundle(resolve_model(Path(model), Path()))


def resolve_model(model: Path | None, runs: Path) -> Path:
    """The bundle file that `model` names: itself, or the one in the run folder; without `model` the newest in `runs`.

    Newest goes by the creation time in the header, which copying does not change; where there is one run, nothing is
    read.

    Raises:
        ModelError: there is none.
    """
    if model is None:
        found = sorted(runs.glob(f"*/{BUNDLE_NAME}"))
        if not found:
            raise ModelError(
                f"no model is given and {runs}/ holds no run", "Give --model, or set CXR_MODEL.", code="model-missing"
            )
        return found[0] if len(found) == 1 else max(found, key=lambda path: read_header(path).created)
    if model.is_dir():
        if not (model / BUNDLE_NAME).is_file():
            raise ModelError(
                f"folder {model} holds no {BUNDLE_NAME}", "Give a run folder of cxr train.", code="model-missing"
            )
        return model / BUNDLE_NAME
    if not model.exists():
        raise ModelError(f"model {model} does not exist", "Give a run folder or a bundle file.", code="model-missing")
    return model
