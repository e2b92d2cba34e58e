"""Detect five findings in frontal chest radiographs with a DenseNet121. Research software, not a medical device.

>>> from cxrtool import Classifier
>>> classifier = Classifier.load("runs/my-run")  # doctest: +SKIP
>>> classifier.predict("image.jpg").probabilities["Edema"]  # doctest: +SKIP
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cxrtool.api import calibrate, compare, evaluate, evaluate_scores, train, tune
    from cxrtool.choices import Method
    from cxrtool.errors import (
        CxrError,
        ImageError,
        InterruptedWorkError,
        ModelError,
        RequestError,
        SheetError,
        WriteError,
    )
    from cxrtool.explain.explanation import Explanation
    from cxrtool.findings import CHEXPERT5, Findings
    from cxrtool.predict.classifier import Classifier
    from cxrtool.predict.prediction import Prediction
    from cxrtool.resolved_settings import load_settings
    from cxrtool.settings import RuntimeSettings, Settings

__version__ = "0.2.0"
__all__ = [
    "CHEXPERT5",
    "Classifier",
    "CxrError",
    "Explanation",
    "Findings",
    "ImageError",
    "InterruptedWorkError",
    "Method",
    "ModelError",
    "Prediction",
    "RequestError",
    "RuntimeSettings",
    "Settings",
    "SheetError",
    "WriteError",
    "__version__",
    "calibrate",
    "compare",
    "evaluate",
    "evaluate_scores",
    "load_settings",
    "train",
    "tune",
]

# Imported on first access, because importing torch takes seconds and `import cxrtool` does not need it.
_MODULES = {
    "api": ("calibrate", "compare", "evaluate", "evaluate_scores", "train", "tune"),
    "choices": ("Method",),
    "errors": (
        "CxrError",
        "ImageError",
        "InterruptedWorkError",
        "ModelError",
        "RequestError",
        "SheetError",
        "WriteError",
    ),
    "explain.explanation": ("Explanation",),
    "findings": ("CHEXPERT5", "Findings"),
    "predict.classifier": ("Classifier",),
    "predict.prediction": ("Prediction",),
    "resolved_settings": ("load_settings",),
    "settings": ("RuntimeSettings", "Settings"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
