"""Radiographs that are no files of their own on this machine: objects in a store, members of an archive."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TypeAlias

from cxrtool.settings import Limits


class StoredFile(ABC):
    """A radiograph whose bytes are fetched from elsewhere when they are needed.

    ``str()`` gives its name in messages and tables, which never holds a password or a signature. It can be pickled.
    """

    @abstractmethod
    def __str__(self) -> str: ...

    @abstractmethod
    def fetch(self, limits: Limits) -> bytes:
        """Return the whole content.

        Raises:
            ImageError: it is missing, larger than `limits`, or cannot be fetched.
        """


Item: TypeAlias = Path | StoredFile
"""One radiograph among the inputs of a command."""
