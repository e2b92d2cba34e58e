"""What another program calls: load a model once, then predict and explain from any thread."""

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from cxrtool.choices import Method
from cxrtool.data.decoded import ImageWarning
from cxrtool.data.dicom import Window
from cxrtool.data.preprocessing import preprocess
from cxrtool.data.radiograph import Radiograph, Reading, radiograph_batches, read_radiograph
from cxrtool.engines.device import Runtime, choose_runtime, sigmoid
from cxrtool.engines.engine import Engine, TorchEngine
from cxrtool.engines.open import open_engine
from cxrtool.errors import CxrError, RequestError
from cxrtool.evaluation.calibration import Scaling, calibrate_probabilities
from cxrtool.explain.explanation import Explanation, heatmap_of
from cxrtool.explain.methods import Map, MapSettings, Wanted, all_columns, explain_batch, fitting_layer
from cxrtool.findings import FINDINGS, find_finding
from cxrtool.model.bundle import BundleHeader
from cxrtool.model.densenet import ChestNet
from cxrtool.model.resolve import Model, open_model
from cxrtool.settings import RuntimeSettings


@dataclass(frozen=True)
class FindingResult:
    """One finding of one radiograph.

    Attributes:
        label: the finding's name.
        probability: in [0, 1], calibrated where the model is and raw ones were not asked for.
        threshold: positive at or above it; on the same scale.
        raw_probability: the network's own.
    """

    label: str
    probability: float
    threshold: float
    raw_probability: float

    @property
    def positive(self) -> bool:
        """Whether the probability reaches the threshold."""
        return self.probability >= self.threshold


@dataclass(frozen=True)
class Prediction:
    """What the model reads in one radiograph.

    Attributes:
        path: its file.
        findings: five results in the order of `FINDINGS`; none when the file could not be read.
        error: why it could not be read, else None.
        warnings: what to beware of in the file, as that it looks inverted.
    """

    path: Path
    findings: tuple[FindingResult, ...]
    error: str | None = None
    warnings: tuple[ImageWarning, ...] = ()

    @property
    def probabilities(self) -> dict[str, float]:
        """Probability by finding."""
        return {result.label: result.probability for result in self.findings}

    @property
    def positives(self) -> tuple[str, ...]:
        """The findings at or above their threshold."""
        return tuple(result.label for result in self.findings if result.positive)

    def to_dict(self) -> dict[str, object]:
        """As ``cxr predict --json`` prints it."""
        return {
            "path": str(self.path),
            "error": self.error,
            "warnings": [{"code": warning.code, "message": warning.message} for warning in self.warnings],
            "findings": [
                {
                    "label": result.label,
                    "probability": result.probability,
                    "threshold": result.threshold,
                    "positive": result.positive,
                    "raw_probability": result.raw_probability,
                }
                for result in self.findings
            ],
        }


@dataclass(frozen=True, eq=False)
class Classifier:
    """A trained model, ready to read radiographs.

    Nothing in it changes after `load`, so threads may share one.

    Attributes:
        path: the bundle's file.
        sha256: of that file.
        header: what the bundle says of itself.
        thresholds: by finding, on the scale of the probabilities; the bundle's unless others were given.
        scalings: the bundle's calibration, None where it has none or raw probabilities were asked for.
        network: with torch, for maps.
        runtime: where maps are made.
        engine: what predicts.
        reading: how images are read, ahead and in batches in `predict_many`.
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

    @classmethod
    def load(
        cls,
        model: Model,
        thresholds: Mapping[str, float] | None = None,
        settings: RuntimeSettings | None = None,
        raw: bool = False,
    ) -> Self:
        """Read a model.

        Args:
            model: a run folder, a bundle file or an opened bundle.
            thresholds: by finding, instead of the bundle's; each in [0, 1], on the scale of the probabilities.
            settings: backend, device, precision, threads and batch size.
            raw: give the network's own probabilities though the bundle holds a calibration.

        Raises:
            ModelError: it is missing, damaged, or no bundle of these five findings.
            RequestError: the backend or the device is not here.
        """
        settings = settings or RuntimeSettings()
        bundle = open_model(model)
        header = bundle.header
        engine = open_engine(bundle, settings, reported=False)
        runtime = choose_runtime(settings)
        scalings = None if raw else header.scalings
        own = header.effective_thresholds
        if scalings is not None:
            # Through the same map as the probabilities, so that no decision changes.
            own = {finding: float(scalings[finding].apply(threshold)) for finding, threshold in own.items()}
        return cls(
            path=bundle.path,
            sha256=bundle.sha256,
            header=header,
            thresholds=own | dict(thresholds or {}),
            scalings=scalings,
            network=runtime.place(bundle.network if runtime.device.type == "cpu" else deepcopy(bundle.network)),
            runtime=runtime,
            engine=engine,
            reading=replace(
                Reading.by(header.image_preprocessing, settings),
                strict=settings.strict,
                window=None if settings.window is None else Window.parse(settings.window),
            ),
        )

    def predict(self, path: str | Path) -> Prediction:
        """Read one radiograph's findings.

        Raises:
            ImageError: it cannot be read.
        """
        return self._predictions([read_radiograph(Path(path), self.reading)])[0]

    def predict_image(self, image: NDArray[np.uint8], path: str | Path = "") -> Prediction:
        """The findings of an image that is decoded already: [H, W] uint8 grey; `path` only names it."""
        pixels = preprocess(image, self.header.image_preprocessing)
        return self._predictions([Radiograph(Path(path), image, pixels)])[0]

    def predict_many(self, paths: Iterable[str | Path]) -> Iterator[Prediction]:
        """Predictions in the order of `paths`, read ahead and in batches; a file that cannot be read has its error.

        Memory does not grow with the number of paths.
        """
        for batch in radiograph_batches((Path(path) for path in paths), self.reading):
            good = [result for _, result in batch if isinstance(result, Radiograph)]
            predictions = iter(self._predictions(good) if good else ())
            for path, result in batch:
                yield Prediction(path, (), str(result)) if isinstance(result, CxrError) else next(predictions)

    def _predictions(self, radiographs: Sequence[Radiograph]) -> list[Prediction]:
        pixels = np.stack([radiograph.pixels for radiograph in radiographs])[:, None]
        probabilities = sigmoid(self.engine.logits(pixels))
        return [
            Prediction(radiograph.path, self._results(row), warnings=radiograph.warnings)
            for radiograph, row in zip(radiographs, probabilities, strict=True)
        ]

    def _results(self, probabilities: NDArray[np.float32]) -> tuple[FindingResult, ...]:
        raw = probabilities.astype(np.float64)
        shown = raw if self.scalings is None else calibrate_probabilities(raw[None], self.scalings)[0]
        return tuple(
            FindingResult(label, float(shown[column]), self.thresholds[label], float(raw[column]))
            for column, label in enumerate(FINDINGS)
        )

    def explain(
        self, path: str | Path, label: str, method: Method | str | None = None, stretch: bool = False
    ) -> Explanation:
        """Where the model looked for one finding.

        Args:
            path: the radiograph.
            label: the finding, whatever its case.
            method: ``grad-cam``, ``layer-cam``, ... (`Method`); the default one unless given.
            stretch: raise the map's peak to 1 instead of the probability.

        Raises:
            ImageError: the file cannot be read.
            RequestError: the finding or the method is unknown; the advice suggests the nearest.
        """
        finding = find_finding(label)
        settings = self._own_maps if method is None else replace(self._own_maps, method=find_method(method))
        radiograph = read_radiograph(Path(path), replace(self.reading, whole=True))
        return self._explained([radiograph], finding, settings, stretch)[0][0]

    def explain_many(
        self,
        paths: Iterable[str | Path],
        label: str | None = None,
        settings: MapSettings | None = None,
        every: bool = False,
        stretch: bool = False,
    ) -> Iterator[tuple[Path, tuple[Explanation, ...] | CxrError]]:
        """Explanations per file, in order: of `label`, else of every positive finding, else of the most probable.

        Args:
            paths: radiographs; read ahead, in batches, with flat memory.
            label: one finding.
            settings: method, layer and averaging.
            every: all five findings, positive or not.
            stretch: see `explain`.

        Yields:
            The file, with its explanations or the error that it met.

        Raises:
            RequestError: the finding is unknown.
        """
        finding = None if label is None else find_finding(label)
        reading = replace(self.reading, whole=True)
        for batch in radiograph_batches((Path(path) for path in paths), reading):
            good = [result for _, result in batch if isinstance(result, Radiograph)]
            groups = iter(self._explained(good, finding, settings or self._own_maps, stretch, every) if good else ())
            for path, result in batch:
                yield path, result if isinstance(result, CxrError) else next(groups)

    @property
    def _own_maps(self) -> MapSettings:
        return MapSettings(layer=fitting_layer(self.header.image_preprocessing.image_size))

    def maps_of(
        self, radiographs: Sequence[Radiograph], wanted: Wanted, settings: MapSettings
    ) -> tuple[NDArray[np.float32], list[dict[int, Map]]]:
        """As `explain_batch`; what needs no gradient is run by the engine's own network, where that is torch's."""
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
                columns = range(len(FINDINGS)) if finding is None else [FINDINGS.index(finding)]
                return all_columns(columns)(logits)
            return np.stack([_chosen(self._results(row)) for row in sigmoid(logits)])

        logits, maps = self.maps_of(radiographs, wanted, settings)
        groups = []
        for radiograph, row, found in zip(radiographs, sigmoid(logits), maps, strict=True):
            results = self._results(row)
            height, width = radiograph.image.shape
            groups.append(
                tuple(
                    Explanation(
                        path=radiograph.path,
                        label=results[column].label,
                        probability=results[column].probability,
                        threshold=results[column].threshold,
                        image=radiograph.image,
                        heatmap=heatmap_of(coarse, height, width, results[column].probability, stretch),
                        method=settings.title,
                        stretched=stretch,
                        known=self.header.known_localization(settings.title, results[column].label),
                        warnings=radiograph.warnings,
                    )
                    for column, coarse in sorted(found.items())
                )
            )
        return groups


def _chosen(results: Sequence[FindingResult]) -> NDArray[np.bool_]:
    """Every positive finding, or the most probable one if none is; [5]."""
    positive = np.array([result.positive for result in results])
    if not positive.any():
        positive[int(np.argmax([result.probability for result in results]))] = True
    return positive


def find_method(name: str) -> Method:
    """The method called `name`.

    Raises:
        RequestError: there is none; the advice names them and suggests the nearest.
    """
    try:
        return Method(name)
    except ValueError:
        near = difflib.get_close_matches(name, list(Method), n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise RequestError(f"method {name!r} is unknown", f"{hint}The methods are {', '.join(Method)}.") from None
