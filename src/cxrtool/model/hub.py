"""Weights on the Hugging Face hub, ``hf:OWNER/NAME`` or ``hf:OWNER/NAME@REVISION``, by huggingface_hub."""

import re
from importlib import import_module
from pathlib import Path
from types import ModuleType

from cxrtool.errors import CxrError, ModelError, RequestError

HUB = "hf:"
_REFERENCE = re.compile(r"^hf:(\w[\w.-]*/\w[\w.-]*)(?:@([\w./-]+))?$")
BUNDLE_NAME = "model.safetensors"
"""Name of a bundle in a run folder, and the one file that is read from a repository; pickles are never fetched."""


def is_on_hub(name: str) -> bool:
    """Return whether a model or initial weights are named by a repository."""
    return name.startswith(HUB)


def fetch(reference: str) -> Path:
    """Return the path of a repository's model.safetensors, downloaded once and then kept in the hub's cache.

    Args:
        reference: ``hf:OWNER/NAME``, or with a branch, tag or commit ``hf:OWNER/NAME@REVISION``.

    Raises:
        RequestError: the reference is not of this form, or huggingface_hub is not installed.
        ModelError: the repository or the file does not exist, or there is no network and no copy in the cache.
    """
    found = _REFERENCE.match(reference)
    if found is None:
        raise RequestError(f"{reference!r} names no repository", "Write it as hf:OWNER/NAME or hf:OWNER/NAME@REVISION.")
    hub = _hub(reference)
    try:
        return Path(hub.hf_hub_download(found[1], BUNDLE_NAME, revision=found[2]))
    except Exception as error:  # noqa: BLE001 - its errors, httpx's and requests' have no common base class
        raise ModelError(
            f"{reference} cannot be fetched ({_reason(error)})",
            f"Check the name and the network, or download its {BUNDLE_NAME} and name that file.",
            code="model-missing",
        ) from None


def upload(folder: Path, repository: str, private: bool) -> str:
    """Send the files of a folder to a repository, which is made if there is none; return its address.

    Args:
        folder: the files.
        repository: OWNER/NAME.
        private: make a new repository private.

    Raises:
        RequestError: huggingface_hub is not installed.
        CxrError: the repository cannot be written.
    """
    api = _hub("cxr push").HfApi()
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Add the model"))
    except Exception as error:  # noqa: BLE001 - as above
        raise CxrError(
            f"{repository} could not be written ({_reason(error)})",
            "Check the name, the network and the login (hf auth login); --folder writes the files here.",
        ) from None


def _hub(what: str) -> ModuleType:
    try:
        return import_module("huggingface_hub")
    except ImportError:
        raise RequestError(f"{what} needs huggingface_hub", "Install it: pip install 'cxrtool[hub]'.") from None


def _reason(error: Exception) -> str:
    """Return the error as one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}".removesuffix(": ")
