"""Read five findings in frontal chest radiographs with a DenseNet121. Research software, not a medical device.

>>> from cxrtool import Classifier
>>> classifier = Classifier.load("runs/my-run")
>>> classifier.predict("image.jpg").probabilities["Edema"]  # doctest: +SKIP
"""

from importlib import import_module
from typing import TYPE_CHECKING

from cxrtool.findings import FINDINGS

if TYPE_CHECKING:
    from cxrtool.explain.explanation import Explanation
    from cxrtool.predict.classifier import Classifier, Prediction

__version__ = "0.1.0"
__all__ = ["FINDINGS", "Classifier", "Explanation", "Prediction", "__version__"]

# torch takes seconds to import; `import cxrtool` does not need it before one of these is asked for.
_LAZY = {
    "Classifier": "cxrtool.predict.classifier",
    "Prediction": "cxrtool.predict.classifier",
    "Explanation": "cxrtool.explain.explanation",
}


def __getattr__(name: str) -> object:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
