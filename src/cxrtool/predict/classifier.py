"""The class that loads a model once, and then predicts and explains from any thread."""

import difflib
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from numbers import Real
from pathlib import Path
from threading import Event
from types import MappingProxyType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from cxrtool.choices import Method
from cxrtool.data.dicom_grey import Window
from cxrtool.data.radiograph import Radiograph, Reading, SourceT, radiograph_batches, read_radiograph
from cxrtool.data.sources import Source, name_of, path_of
from cxrtool.engines.device import Runtime, choose_runtime, sigmoid
from cxrtool.engines.engine import Engine, TorchEngine
from cxrtool.engines.open import open_engine
from cxrtool.errors import CxrError, RequestError
from cxrtool.evaluation.calibration import Scaling, calibrate_probabilities
from cxrtool.explain.explanation import Explanation, heatmap_of
from cxrtool.explain.methods import Map, MapSettings, Wanted, all_columns, explain_batch, fitting_layer
from cxrtool.findings import Findings
from cxrtool.model.densenet import ChestNet
from cxrtool.model.header import BundleHeader
from cxrtool.model.resolve import Model, open_model
from cxrtool.predict.prediction import FindingResult, ModelIdentity, Prediction
from cxrtool.resolved_settings import AnySettings, resolved
from cxrtool.settings import RuntimeSettings
from cxrtool.text import shortened

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False, repr=False)
class Classifier:
    """A trained model that predicts and explains radiographs.

    It does not change after `load`, so threads may share one.

    Attributes:
        path: path of the bundle file.
        sha256: SHA-256 of the bundle file, in hex.
        header: metadata of the bundle.
        thresholds: threshold by finding, on the scale of the probabilities; those passed to `load`, otherwise the
            bundle's. Read-only.
        scalings: calibration by finding; None if the bundle has none or `raw` was set.
        network: torch network, used for heatmaps.
        runtime: device and precision of the heatmaps.
        engine: engine that computes the predictions.
        reading: how images are read.
    """

    path: Path
    sha256: str
    header: BundleHeader
    thresholds: Mapping[str, float]
    scalings: Mapping[str, Scaling] | None
    network: ChestNet
    runtime: Runtime
    engine: Engine
    reading: Reading
    _told: Event = field(default_factory=Event)  # set once `_warn_if_real` has warned

    @classmethod
    def load(
        cls,
        model: Model,
        settings: RuntimeSettings | AnySettings | None = None,
        *,
        thresholds: Mapping[str, float] | None = None,
        raw: bool = False,
    ) -> Self:
        """Load a model.

        Args:
            model: a run folder, a bundle file or an opened bundle.
            settings: backend, device, precision, threads and batch size. If all settings are passed, only those of the
                runtime are used.
            thresholds: threshold by finding (ignoring case), each in [0, 1] on the scale of the probabilities. A
                finding that is left out keeps the threshold of the bundle.
            raw: return the network's own probabilities even if the bundle is calibrated.

        Raises:
            ModelError: the model is missing or damaged, or is not a bundle.
            RequestError: the backend or the device is not available, or a threshold has an unknown finding or is not
                in [0, 1].
        """
        settings = _runtime_settings(settings)
        bundle = open_model(model)
        header = bundle.header
        custom = _check_thresholds(thresholds or {}, header.labels)
        engine = open_engine(bundle, settings, reported=False)
        runtime = choose_runtime(settings)
        scalings = None if raw else header.scalings
        defaults = header.effective_thresholds
        if scalings is not None:
            # Calibrated like the probabilities, so that no decision changes.
            defaults = {finding: float(scalings[finding].apply(threshold)) for finding, threshold in defaults.items()}
        return cls(
            path=bundle.path,
            sha256=bundle.sha256,
            header=header,
            thresholds=MappingProxyType(defaults | custom),
            scalings=scalings,
            network=runtime.place(bundle.network if runtime.device.type == "cpu" else deepcopy(bundle.network)),
            runtime=runtime,
            engine=engine,
            reading=replace(
                Reading.from_settings(header.image_preprocessing, settings),
                strict=settings.strict,
                window=None if settings.window is None else Window.parse(settings.window),
            ),
        )

    @property
    def findings(self) -> Findings:
        """The findings of the model, in the order of its outputs."""
        return self.header.labels

    @property
    def identity(self) -> ModelIdentity:
        """The model settings that the probabilities depend on, besides the image."""
        how = self.engine.how
        size = self.header.image_preprocessing.image_size
        return ModelIdentity(self.header.weights_sha256, how.backend, how.precision, size)

    def __repr__(self) -> str:
        size, digest = self.header.image_preprocessing.image_size, self.header.weights_sha256[:8]
        return f"Classifier({shortened(str(self.path), 50)!r}, {size} px, {self.engine.how}, weights {digest})"

    def predict(self, radiograph: Source) -> Prediction:
        """Predict the findings of the model for one radiograph.

        Args:
            radiograph: a path; the content of a file as bytes; a binary file object; a PIL image; a pydicom data set;
                or a numpy array, [H, W] grey or [H, W, 3] RGB, of uint8 from 0 (black) to 255 (white), uint16, scaled
                from the range found, or floats from 0 (black) to 1 (white).

        Raises:
            ImageError: the radiograph cannot be read.
            RequestError: the input is not of a supported kind.
        """
        return self._predictions([read_radiograph(radiograph, self.reading)])[0]

    def predict_many(self, radiographs: Iterable[Source]) -> Iterator[Prediction]:
        """Predict many radiographs, which are read ahead and in batches.

        Memory does not grow with the number of radiographs. Do not change an array before its prediction is yielded.

        Args:
            radiographs: any mix of inputs that `predict` accepts; may be endless.

        Yields:
            One prediction per input, in order. An input that cannot be read gets a prediction with `error` set.

        Raises:
            RequestError: `radiographs` is a single path or the content of a single file.
        """
        _check_not_single(radiographs)
        return self._predict_many(radiographs)

    def _predict_many(self, radiographs: Iterable[Source]) -> Iterator[Prediction]:
        identity = self.identity
        for batch in radiograph_batches(radiographs, self.reading):
            good = [result for _, result in batch if isinstance(result, Radiograph)]
            predictions = iter(self._predictions(good) if good else ())
            for source, result in batch:
                if isinstance(result, CxrError):
                    name, code = name_of(source), result.code
                    yield Prediction(path_of(source), (), str(result), (), code, name, identity)
                else:
                    yield next(predictions)

    def _predictions(self, radiographs: Sequence[Radiograph]) -> list[Prediction]:
        self._warn_if_real(radiographs)
        pixels = np.stack([radiograph.pixels for radiograph in radiographs])[:, None]
        probabilities = sigmoid(self.engine.logits(pixels))
        identity = self.identity
        return [
            Prediction(
                radiograph.path,
                self._results(row),
                warnings=radiograph.warnings,
                name=radiograph.name,
                model=identity,
            )
            for radiograph, row in zip(radiographs, probabilities, strict=True)
        ]

    def _warn_if_real(self, radiographs: Sequence[Radiograph]) -> None:
        """Warn once if the model has learnt from drawings alone and reads something else."""
        if not self.header.synthetic or self._told.is_set() or all(one.drawn for one in radiographs):
            return
        self._told.set()
        real = next(one.name for one in radiographs if not one.drawn)
        log.warning(
            "%s is no synthetic radiograph, and this model was trained on nothing else: its figures say nothing of it",
            real,
        )

    def _results(self, probabilities: NDArray[np.float32]) -> tuple[FindingResult, ...]:
        raw = probabilities.astype(np.float64)
        shown = raw if self.scalings is None else calibrate_probabilities(raw[None], self.scalings)[0]
        return tuple(
            FindingResult(label, float(shown[column]), self.thresholds[label], float(raw[column]))
            for column, label in enumerate(self.findings)
        )

    def explain(
        self, radiograph: Source, label: str, method: Method | str | None = None, stretch: bool = False
    ) -> Explanation:
        """Compute a heatmap of where the model looked for one finding.

        Args:
            radiograph: any input that `predict` accepts.
            label: name of the finding, ignoring case.
            method: a `Method` or its name, for example ``layer-cam``. Default: ``grad-cam``.
            stretch: scale the peak of the map to 1 instead of the probability.

        Raises:
            ImageError: the radiograph cannot be read.
            RequestError: the finding or the method is unknown; the advice suggests the closest name.
        """
        finding = self.findings.find(label)
        settings = self._default_maps if method is None else replace(self._default_maps, method=find_method(method))
        read = read_radiograph(radiograph, replace(self.reading, full_size=True))
        return self._explained([read], finding, settings, stretch)[0][0]

    def explain_many(
        self,
        radiographs: Iterable[SourceT],
        label: str | None = None,
        settings: MapSettings | None = None,
        every: bool = False,
        stretch: bool = False,
    ) -> Iterator[tuple[SourceT, tuple[Explanation, ...] | CxrError]]:
        """Explain many radiographs, which are read ahead and in batches.

        Args:
            radiographs: inputs as in `predict_many`.
            label: finding to explain, ignoring case. Default: every positive finding, or the most probable one if none
                is positive.
            settings: method, layer and averaging of the maps.
            every: explain all findings if `label` is not given.
            stretch: scale the peak of each map to 1, see `explain`.

        Yields:
            (input, explanations) pairs in order. The error replaces the explanations if the input cannot be read.

        Raises:
            RequestError: the finding is unknown, or `radiographs` is a single path or the content of a single file.
        """
        _check_not_single(radiographs)
        finding = None if label is None else self.findings.find(label)
        return self._explain_many(radiographs, finding, settings or self._default_maps, every, stretch)

    def _explain_many(
        self, radiographs: Iterable[SourceT], finding: str | None, settings: MapSettings, every: bool, stretch: bool
    ) -> Iterator[tuple[SourceT, tuple[Explanation, ...] | CxrError]]:
        for batch in radiograph_batches(radiographs, replace(self.reading, full_size=True)):
            good = [result for _, result in batch if isinstance(result, Radiograph)]
            groups = iter(self._explained(good, finding, settings, stretch, every) if good else ())
            for source, result in batch:
                yield source, result if isinstance(result, CxrError) else next(groups)

    @property
    def _default_maps(self) -> MapSettings:
        return MapSettings(layer=fitting_layer(self.header.image_preprocessing.image_size))

    def maps_of(
        self, radiographs: Sequence[Radiograph], wanted: Wanted, settings: MapSettings
    ) -> tuple[NDArray[np.float32], list[dict[int, Map]]]:
        """Call `explain_batch`; passes without gradients use the engine's network if the engine is torch."""
        pixels = self.runtime.tensor(np.stack([radiograph.pixels for radiograph in radiographs])[:, None])
        fast = self.engine.network if isinstance(self.engine, TorchEngine) else None
        return explain_batch(self.network, pixels, wanted, settings, fast)

    def _explained(
        self,
        radiographs: Sequence[Radiograph],
        finding: str | None,
        settings: MapSettings,
        stretch: bool,
        every: bool = False,
    ) -> list[tuple[Explanation, ...]]:
        def wanted(logits: NDArray[np.float32]) -> NDArray[np.bool_]:
            if finding is not None or every:
                columns = range(len(self.findings)) if finding is None else [self.findings.index(finding)]
                return all_columns(columns)(logits)
            return np.stack([_positive_or_top(self._results(row)) for row in sigmoid(logits)])

        self._warn_if_real(radiographs)
        logits, maps = self.maps_of(radiographs, wanted, settings)
        groups, fit = [], self.reading.preprocessing.fit
        for radiograph, row, found in zip(radiographs, sigmoid(logits), maps, strict=True):
            results = self._results(row)
            height, width = radiograph.image.shape
            groups.append(
                tuple(
                    Explanation(
                        path=radiograph.path,
                        name=radiograph.name,
                        label=results[column].label,
                        probability=results[column].probability,
                        threshold=results[column].threshold,
                        image=radiograph.image,
                        heatmap=heatmap_of(coarse, height, width, results[column].probability, stretch, fit),
                        method=settings.title,
                        stretched=stretch,
                        known=self.header.known_localization(settings.title, results[column].label),
                        hit_rate=self.header.hit_rate(settings.title, results[column].label),
                        warnings=radiograph.warnings,
                    )
                    for column, coarse in sorted(found.items())
                )
            )
        return groups


def _positive_or_top(results: Sequence[FindingResult]) -> NDArray[np.bool_]:
    """Return a mask, [F] bool, of all positive findings, or of the most probable one if none is positive."""
    positive = np.array([result.positive for result in results])
    if not positive.any():
        positive[int(np.argmax([result.probability for result in results]))] = True
    return positive


def _runtime_settings(settings: RuntimeSettings | AnySettings | None) -> RuntimeSettings:
    if settings is None:
        return RuntimeSettings()
    return settings if isinstance(settings, RuntimeSettings) else resolved(settings).settings.runtime


def _check_thresholds(thresholds: Mapping[str, float], findings: Findings) -> dict[str, float]:
    checked: dict[str, float] = {}
    for name, value in thresholds.items():
        finding = findings.find(name)
        if finding in checked:
            raise RequestError(f"{finding} has two thresholds", "Pass one threshold per finding.")
        if not isinstance(value, Real) or isinstance(value, bool) or not 0 <= float(value) <= 1:  # NaN is neither
            raise RequestError(
                f"threshold {value!r} of {finding} is not a number from 0 to 1", "Pass a number such as 0.5."
            )
        checked[finding] = float(value)
    return checked


def _check_not_single(radiographs: object) -> None:
    if isinstance(radiographs, str | os.PathLike | bytes | bytearray | memoryview):
        raise RequestError(
            f"{name_of(radiographs)} is a single radiograph, not a list of radiographs",
            "Put it into a list, or call predict or explain.",
        )


def find_method(name: str) -> Method:
    """Return the method called `name`.

    Raises:
        RequestError: there is no such method; the advice lists all and suggests the closest.
    """
    try:
        return Method(name)
    except ValueError:
        near = difflib.get_close_matches(name, list(Method), n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise RequestError(f"method {name!r} is unknown", f"{hint}The methods are {', '.join(Method)}.") from None
