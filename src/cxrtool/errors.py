"""Exceptions of the library, each with an exit code and one line of advice.

The library raises them; only the command line prints them, as ``error: ...`` followed by the advice.
"""

CODES = {
    "failed": "the work failed",
    "interrupted": "a signal stopped the work; finished work is kept",
    "write-failed": "a file cannot be written",
    "other-process": "another process of the same training has ended",
    "request-wrong": "the usage, a setting or a value is wrong",
    "input-unsupported": "an input is of a kind that cannot be read as a radiograph",
    "sheet-unusable": "a label sheet cannot be used",
    "model-unusable": "a model cannot be used",
    "model-missing": "the model does not exist",
    "model-damaged": "the weights of a model do not match their digest",
    "image-unreadable": "an image cannot be read or decoded",
    "image-missing": "the image file does not exist",
    "image-outside": "the path or a link of an image leads out of the data folder",
    "image-too-large": "an image has more pixels or bytes than the limits allow",
    "image-wrong-shape": "an image is too small, too narrow, or has several pages",
    "image-wrong-values": "an array has a type, shape or values that are not supported",
    "image-warned": "an image has warnings, and they count as errors (--strict)",
}
"""Machine-readable error codes and their meaning. Codes never change; new ones may be added."""


class CxrError(Exception):
    """The work failed (exit code 1).

    Args:
        message: one line that says what is wrong and names the file, option or value.
        advice: one line that says what to do; may be empty.
        code: key of `CODES`. Default: the code of the class.

    Attributes:
        said: whether another process of the same work has said it, so that this one need not.
    """

    exit_code = 1
    code = "failed"
    said = False

    def __init__(self, message: str, advice: str = "", *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice
        if code is not None:
            self.code = code

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.message, self.advice), vars(self).copy()


class RequestError(CxrError):
    """The request was wrong: usage, settings, missing or unusable input. No work was started (exit code 2)."""

    exit_code = 2
    code = "request-wrong"


class SheetError(RequestError):
    """A label sheet cannot be used."""

    code = "sheet-unusable"


class ModelError(RequestError):
    """A model bundle cannot be used."""

    code = "model-unusable"


class ImageError(CxrError):
    """One image cannot be read. Commands on many images write a row with the error and continue."""

    code = "image-unreadable"


class WriteError(CxrError):
    """A file cannot be written, for example because the disk is full or permission is missing."""

    code = "write-failed"


class OtherProcessError(CxrError):
    """Another process of the same training has ended; that one says why."""

    code = "other-process"


class InterruptedWorkError(CxrError):
    """A signal stopped the work; finished work is kept.

    Args:
        message: what was stopped and what is kept.
        advice: how to continue.
        signal_number: 2 (SIGINT) or 15 (SIGTERM); the exit code is 128 plus this number.
    """

    code = "interrupted"

    def __init__(self, message: str, advice: str = "", signal_number: int = 2) -> None:
        super().__init__(message, advice)
        self.exit_code = 128 + signal_number


_OUT_OF_MEMORY_MESSAGES = (
    "can't allocate memory",
    "could not create a primitive",
    "could not create a memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDA error: out of memory",  # page-locked memory too
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether `error` means that memory has run out, of Python, of a GPU, or of torch or oneDNN on a CPU.

    torch and oneDNN raise a plain RuntimeError on a CPU, so its text decides. oneDNN's text can have other causes:
    callers should show it.
    """
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and any(text in str(error) for text in _OUT_OF_MEMORY_MESSAGES))
    )


def first_line(error: BaseException) -> str:
    """Return the first line of the message of `error`, or its type name if the message is empty."""
    return next(iter(str(error).splitlines()), type(error).__name__)
