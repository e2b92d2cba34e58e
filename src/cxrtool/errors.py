"""What can go wrong, as exceptions that know their exit code and carry one line of advice.

The library raises these; only the command line prints them, as ``error: ...`` and one line of advice.
"""

CODES = {
    "failed": "the work failed",
    "interrupted": "a signal asked for the end; what is done is kept",
    "write-failed": "a file cannot be written",
    "request-wrong": "usage, a setting or a value is wrong",
    "input-unsupported": "an input is of a kind that nothing here reads",
    "sheet-unusable": "a label sheet cannot be used",
    "model-unusable": "a model cannot be used",
    "model-missing": "there is no such model",
    "model-damaged": "a model does not match its own digest",
    "image-unreadable": "an image cannot be read or decoded",
    "image-missing": "there is no such image file",
    "image-outside": "an image's path or link leads out of the data folder",
    "image-too-large": "an image has more pixels or bytes than the limits allow",
    "image-wrong-shape": "an image is too small, too narrow or has several pages",
    "image-wrong-values": "an array has a type, a shape or values that no radiograph has",
    "image-warned": "an image is warned of, and warnings were to count as errors",
}
"""What a program may go by, and what each means. Codes do not change; more may come."""


class CxrError(Exception):
    """The work failed (exit code 1).

    Args:
        message: what is wrong, with the file, option or value that is meant. One line.
        advice: what to do about it. One line, may be empty.
        code: one of `CODES`, for programs; the class's own unless given.
    """

    exit_code = 1
    code = "failed"

    def __init__(self, message: str, advice: str = "", *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice
        if code is not None:
            self.code = code

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.message, self.advice), vars(self).copy()


class RequestError(CxrError):
    """The request was wrong: usage, settings, missing or unusable input. Nothing was begun (exit 2)."""

    exit_code = 2
    code = "request-wrong"


class SheetError(RequestError):
    """A label sheet cannot be used."""

    code = "sheet-unusable"


class ModelError(RequestError):
    """A model bundle cannot be used."""

    code = "model-unusable"


class ImageError(CxrError):
    """One image cannot be read. Commands on many images give it its own row and go on."""

    code = "image-unreadable"


class WriteError(CxrError):
    """A file cannot be written: the disk is full, or the folder does not allow it."""

    code = "write-failed"


class InterruptedWorkError(CxrError):
    """A signal asked for the end; what is done is kept.

    Args:
        message: what was stopped and what is kept.
        advice: how to go on.
        signal_number: the signal, 2 (SIGINT) or 15 (SIGTERM); the exit code is 128 plus it.
    """

    code = "interrupted"

    def __init__(self, message: str, advice: str = "", signal_number: int = 2) -> None:
        super().__init__(message, advice)
        self.exit_code = 128 + signal_number


_TORCH_WITHOUT_MEMORY = ("can't allocate memory", "could not create a primitive", "could not create a memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory has run out: Python's, a GPU's, or torch's and oneDNN's on a CPU.

    The last two have no type of their own, and oneDNN's words could mean something else: show them too.
    """
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and any(words in str(error) for words in _TORCH_WITHOUT_MEMORY))
    )


def first_line(error: BaseException) -> str:
    """What `error` says, in a line; its type where it says nothing."""
    return next(iter(str(error).splitlines()), type(error).__name__)
