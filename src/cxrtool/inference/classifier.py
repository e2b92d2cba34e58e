"""What another program calls: load a model once, then predict and explain from any thread."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from cxrtool.data.batches import Radiograph, Reading, radiograph_batches, read_radiograph
from cxrtool.data.images import preprocess
from cxrtool.errors import CxrError
from cxrtool.evaluation.calibration import Scaling, calibrate_probabilities
from cxrtool.explain.cam import Explanation, grad_cam, scale_map
from cxrtool.files import sha256_of_file
from cxrtool.findings import FINDINGS, find_finding
from cxrtool.inference.forward import Runtime, choose_runtime, logits_of, sigmoid
from cxrtool.model.bundle import BundleHeader, load_bundle, resolve_model
from cxrtool.model.densenet import ChestNet
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
    """

    path: Path
    findings: tuple[FindingResult, ...]
    error: str | None = None

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
        runtime: device and precision.
        workers: threads that read ahead in `predict_many`.
        batch_size: images per forward pass there.
    """

    path: Path
    sha256: str
    header: BundleHeader
    thresholds: Mapping[str, float]
    scalings: Mapping[str, Scaling] | None
    network: ChestNet
    runtime: Runtime
    workers: int
    batch_size: int
    read_timeout: float

    @classmethod
    def load(
        cls,
        model: str | Path,
        thresholds: Mapping[str, float] | None = None,
        settings: RuntimeSettings | None = None,
        raw: bool = False,
    ) -> Self:
        """Read a model.

        Args:
            model: a run folder or a bundle file.
            thresholds: by finding, instead of the bundle's; each in [0, 1], on the scale of the probabilities.
            settings: device, precision, threads and batch size.
            raw: give the network's own probabilities though the bundle holds a calibration.

        Raises:
            ModelError: it is missing, damaged, or no bundle of these five findings.
        """
        settings = settings or RuntimeSettings()
        path = resolve_model(Path(model), Path())
        network, header = load_bundle(path)
        runtime = choose_runtime(settings)
        scalings = None if raw else header.scalings
        own = header.effective_thresholds
        if scalings is not None:
            # Through the same map as the probabilities, so that no decision changes.
            own = {finding: float(scalings[finding].apply(threshold)) for finding, threshold in own.items()}
        return cls(
            path=path,
            sha256=sha256_of_file(path),
            header=header,
            thresholds=own | dict(thresholds or {}),
            scalings=scalings,
            network=runtime.place(network),
            runtime=runtime,
            workers=settings.workers,
            batch_size=settings.batch_size,
            read_timeout=settings.read_timeout,
        )

    @property
    def reading(self) -> Reading:
        """How this model's images are read."""
        return Reading(self.header.image_preprocessing, self.batch_size, self.workers, self.read_timeout)

    def predict(self, path: str | Path) -> Prediction:
        """Read one radiograph's findings.

        Raises:
            ImageError: it cannot be read.
        """
        radiograph = read_radiograph(Path(path), self.header.image_preprocessing)
        return self._predictions([radiograph])[0]

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
        probabilities = sigmoid(logits_of(self.network, pixels, self.runtime))
        return [
            Prediction(radiograph.path, self._results(row))
            for radiograph, row in zip(radiographs, probabilities, strict=True)
        ]

    def _results(self, probabilities: NDArray[np.float32]) -> tuple[FindingResult, ...]:
        raw = probabilities.astype(np.float64)
        shown = raw if self.scalings is None else calibrate_probabilities(raw[None], self.scalings)[0]
        return tuple(
            FindingResult(label, float(shown[column]), self.thresholds[label], float(raw[column]))
            for column, label in enumerate(FINDINGS)
        )

    def explain(self, path: str | Path, label: str) -> Explanation:
        """Where the model looked for one finding.

        Raises:
            ImageError: the file cannot be read.
            RequestError: the finding is unknown; the advice suggests the nearest.
        """
        return next(iter(self._explanations([self._read(path)], find_finding(label))))

    def explain_many(
        self, paths: Iterable[str | Path], label: str | None = None
    ) -> Iterator[tuple[Path, tuple[Explanation, ...] | CxrError]]:
        """Explanations per file, in order: of `label`, else of every positive finding, else of the most probable.

        A file that cannot be read comes with its error.

        Raises:
            RequestError: the finding is unknown.
        """
        finding = None if label is None else find_finding(label)
        for batch in radiograph_batches((Path(path) for path in paths), self.reading):
            good = [result for _, result in batch if isinstance(result, Radiograph)]
            groups = iter(self._grouped(good, finding))
            for path, result in batch:
                yield path, result if isinstance(result, CxrError) else next(groups)

    def _read(self, path: str | Path) -> Radiograph:
        return read_radiograph(Path(path), self.header.image_preprocessing)

    def _grouped(self, radiographs: Sequence[Radiograph], finding: str | None) -> list[tuple[Explanation, ...]]:
        if not radiographs:
            return []
        pixels = np.stack([radiograph.pixels for radiograph in radiographs])[:, None]
        columns = range(len(FINDINGS)) if finding is None else [FINDINGS.index(finding)]
        logits, maps = grad_cam(self.network, self.runtime.tensor(pixels), columns)
        probabilities = sigmoid(logits)
        groups = []
        for radiograph, row, coarse in zip(radiographs, probabilities, maps, strict=True):
            results = self._results(row)
            chosen = _choose(results) if finding is None else [0]
            groups.append(
                tuple(
                    self._explanation(radiograph, results[columns[position]], coarse[position]) for position in chosen
                )
            )
        return groups

    def _explanations(self, radiographs: Sequence[Radiograph], finding: str) -> Iterator[Explanation]:
        return chain.from_iterable(self._grouped(radiographs, finding))

    def _explanation(self, radiograph: Radiograph, result: FindingResult, coarse: NDArray[np.float32]) -> Explanation:
        return Explanation(
            path=radiograph.path,
            label=result.label,
            probability=result.probability,
            threshold=result.threshold,
            image=radiograph.image,
            heatmap=scale_map(coarse, *radiograph.image.shape),
        )


def _choose(results: Sequence[FindingResult]) -> list[int]:
    positives = [position for position, result in enumerate(results) if result.positive]
    return positives or [int(np.argmax([result.probability for result in results]))]
