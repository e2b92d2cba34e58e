"""Which bundle a run folder, file or setting means."""

from pathlib import Path

from cxrtool.errors import ModelError
from cxrtool.model.bundle import BUNDLE_NAME, read_header


def resolve_model(model: Path | None, runs: Path) -> Path:
    """The bundle file that `model` names: itself, or the one in the run folder; without `model` the newest in `runs`.

    Newest goes by the creation time in the header, which copying does not change.

    Raises:
        ModelError: there is none.
    """
    if model is None:
        found = sorted(runs.glob(f"*/{BUNDLE_NAME}"))
        if not found:
            raise ModelError(
                f"no model is given and {runs}/ holds no run", "Give --model, or set CXR_MODEL.", code="model-missing"
            )
        return max(found, key=lambda path: read_header(path).created)
    if model.is_dir():
        if not (model / BUNDLE_NAME).is_file():
            raise ModelError(
                f"folder {model} holds no {BUNDLE_NAME}", "Give a run folder of cxr train.", code="model-missing"
            )
        return model / BUNDLE_NAME
    if not model.exists():
        raise ModelError(f"model {model} does not exist", "Give a run folder or a bundle file.", code="model-missing")
    return model
