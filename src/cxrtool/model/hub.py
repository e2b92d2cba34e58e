"""Weights on the Hugging Face hub, ``hf:OWNER/NAME`` or ``hf:OWNER/NAME@REVISION``, by huggingface_hub."""

import re
from pathlib import Path

from cxrtool.errors import ModelError, RequestError

HUB = "hf:"
_REFERENCE = re.compile(r"^hf:(\w[\w.-]*/\w[\w.-]*)(?:@([\w./-]+))?$")
FILE_NAME = "model.safetensors"
"""The one file that is read from a repository; pickles in it are never fetched."""


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
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise RequestError(f"{reference} needs huggingface_hub", "Install it: pip install 'cxrtool[hub]'.") from None
    try:
        return Path(hf_hub_download(found[1], FILE_NAME, revision=found[2]))
    except Exception as error:  # noqa: BLE001 - its errors, httpx's and requests' have no common base class
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ModelError(
            f"{reference} cannot be fetched ({type(error).__name__}: {reason})",
            f"Check the name and the network, or download its {FILE_NAME} and name that file.",
            code="model-missing",
        ) from None
