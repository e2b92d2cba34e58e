"""Finding the bundle that a run folder, file or setting refers to."""

from pathlib import Path

from cxrtool.errors import ModelError
from cxrtool.model.bundle import BUNDLE_NAME, Bundle, open_bundle, read_header
from cxrtool.model.hub import fetch, is_on_hub

Model = Bundle | str | Path
"""A model as an argument: an opened bundle, or the path of a run folder or bundle file."""


def open_model(model: Model) -> Bundle:
    """Open the bundle that `model` refers to; an opened bundle is returned unchanged.

    Raises:
        ModelError: it does not exist, or cannot be used.
    """
    return model if isinstance(model, Bundle) else open_bundle(resolve_model(Path(model), Path()))


def resolve_model(model: Path | None, runs: Path) -> Path:
    """Return the path of the bundle that `model` refers to, a file or a run folder; if None, of the newest in `runs`.

    The newest is determined by the creation time in the header, which copying a file does not change. If there is only
    one run, no file is read. ``hf:OWNER/NAME`` is a repository of the Hugging Face hub, see `fetch`.

    Raises:
        ModelError: there is no such bundle.
        RequestError: the name of a repository is wrong, or huggingface_hub is not installed.
    """
    if model is not None and is_on_hub(str(model)):
        return fetch(str(model))
    if model is None:
        found = sorted(runs.glob(f"*/{BUNDLE_NAME}"))
        if not found:
            raise ModelError(
                f"no model was given and {runs}/ contains no run",
                "Give --model, or set CXR_MODEL.",
                code="model-missing",
            )
        return found[0] if len(found) == 1 else max(found, key=lambda path: read_header(path).created)
    if model.is_dir():
        if not (model / BUNDLE_NAME).is_file():
            raise ModelError(
                f"folder {model} contains no {BUNDLE_NAME}", "Give a run folder of cxr train.", code="model-missing"
            )
        return model / BUNDLE_NAME
    if not model.exists():
        raise ModelError(f"model {model} does not exist", "Give a run folder or a bundle file.", code="model-missing")
    return model
