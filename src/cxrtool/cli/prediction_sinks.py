"""Where the rows of ``cxr predict`` go besides a table: one JSON document, or lines for people."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cxrtool.cli import console
from cxrtool.cli.prediction_rows import RowText
from cxrtool.files import to_json

if TYPE_CHECKING:
    from cxrtool.predict.classifier import Classifier
    from cxrtool.predict.prediction import Prediction

Sink = Callable[["Prediction"], None]


@contextmanager
def json_sink(classifier: "Classifier", name_of: Callable[[str], str]) -> Iterator[Sink]:
    """Write one JSON document row by row, so that memory does not grow with the number of images."""
    model = {
        "path": str(classifier.path),
        "sha256": classifier.sha256,
        "weights_sha256": classifier.header.weights_sha256,
        "policy": classifier.header.policy,
        "image_size": classifier.header.image_preprocessing.image_size,
        **classifier.engine.how.to_dict(),
        "calibrated": classifier.scalings is not None,
    }
    sys.stdout.write(f'{{\n"model": {to_json(model).strip()},\n"predictions": [')
    separator = "\n"

    def write(prediction: "Prediction") -> None:
        nonlocal separator
        row = prediction.to_dict(model=False) | {"path": name_of(prediction.given)}
        sys.stdout.write(separator + to_json(row).strip())
        separator = ",\n"

    yield write
    sys.stdout.write("\n]}\n")


@contextmanager
def text_sink(classifier: "Classifier", name_of: Callable[[str], str]) -> Iterator[Sink]:
    """Print probabilities in columns with a star at each positive finding, and warnings below each image."""
    rows = RowText.fitting(classifier.findings, console.result_width())
    console.say(rows.header)

    def write(prediction: "Prediction") -> None:
        for line in rows.lines(name_of(prediction.given), prediction):
            console.say(line)

    yield write
    for line in rows.wrapped(f"* at or above the finding's threshold (by {classifier.engine.how})"):
        console.say(line)
    console.say("Research software, not a medical device.")
