"""Gallery of a model's mistakes on a split: a table, and pictures with heatmaps."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path

from cxrtool.choices import Level, MistakeKind
from cxrtool.errors import CxrError
from cxrtool.evaluation.mistakes import Mistake, find_mistakes
from cxrtool.evaluation.table import PredictionTable
from cxrtool.explain.explanation import Explanation
from cxrtool.explain.pictures import contact_sheet, write_png
from cxrtool.files import write_csv, write_json
from cxrtool.model.resolve import Model, open_model
from cxrtool.predict.classifier import Classifier
from cxrtool.predict.split import dataset_of, predict_split
from cxrtool.progress import Progress, ProgressCallback, ignore_progress
from cxrtool.settings import Settings

log = logging.getLogger(__name__)

MISTAKES_NAME = "mistakes.json"


@dataclass(frozen=True)
class MistakesResult:
    """Result of `collect_mistakes`.

    Attributes:
        mistakes: by finding and kind, the most confident first.
        pictures: file of each mistake's overlay, by position in `mistakes`; missing if its image could not be read.
        galleries: file of the contact sheet of each finding.
        folder: folder with mistakes.csv, mistakes.json and the pictures.
    """

    mistakes: tuple[Mistake, ...]
    pictures: Mapping[int, Path]
    galleries: Mapping[str, Path]
    folder: Path

    def to_dict(self) -> dict[str, object]:
        """Return the document of ``cxr errors --json``."""
        return {
            "mistakes": [
                asdict(mistake) | {"picture": str(self.pictures[place]) if place in self.pictures else None}
                for place, mistake in enumerate(self.mistakes)
            ],
            "galleries": {finding: str(path) for finding, path in self.galleries.items()},
        }


def collect_mistakes(
    model: Model,
    settings: Settings,
    kind: MistakeKind = MistakeKind.BOTH,
    finding: str | None = None,
    top: int = 8,
    out: Path | None = None,
    progress: ProgressCallback = ignore_progress,
    known: PredictionTable | None = None,
    command: str = "errors",
) -> MistakesResult:
    """Find the most confident mistakes on `settings.eval.split` and draw the heatmap of each.

    Args:
        model: an opened bundle, a run folder or a bundle file. Without tuned thresholds, 0.5 is used for each finding,
            with a warning.
        settings: data, split and device.
        kind: false positives, false negatives or both.
        finding: name of the only finding to list; None lists all.
        top: most mistakes to list per finding and kind.
        out: output folder; None uses ``errors_<split>`` beside the model.
        progress: called as pictures are drawn.
        known: the model's predictions of the split, if there are any; of studies, the model is run on those that it got
            wrong, to learn which of their images it was. None runs it on the whole split.
        command: what the ledger beside the model names as the reason, if the model is run.
    """
    bundle = open_model(model)
    split = settings.eval.split
    if bundle.header.thresholds is None:
        log.warning("the model has no tuned thresholds, so 0.5 is used for each finding; see cxr tune")
    name = None if finding is None else bundle.header.labels.find(finding)
    chosen = partial(find_mistakes, thresholds=bundle.header.effective_thresholds, kind=kind, finding=name, top=top)
    mistakes = () if known is None else chosen(known)
    if known is None or (mistakes and known.level is Level.STUDY):
        studies = {mistake.study for mistake in mistakes} or None
        dataset = dataset_of(settings.data, split, bundle.header.labels)
        images, _ = predict_split(bundle, settings, dataset, split, progress, command, out, studies)
        mistakes = chosen(images)
    folder = out or bundle.path.parent / f"errors_{split}"
    root = settings.data.root or Path()
    classifier = Classifier.load(bundle, settings=settings.runtime.for_maps, raw=True)
    pictures, galleries = _draw(classifier, mistakes, root, folder, progress)
    columns = [field.name for field in fields(Mistake)]
    rows = [
        [*asdict(mistake).values(), pictures[place].name if place in pictures else None]
        for place, mistake in enumerate(mistakes)
    ]
    write_csv(folder / "mistakes.csv", [*columns, "picture"], rows)
    result = MistakesResult(mistakes, pictures, galleries, folder)
    write_json(folder / MISTAKES_NAME, result.to_dict())
    return result


def _draw(
    classifier: Classifier, mistakes: tuple[Mistake, ...], root: Path, folder: Path, progress: ProgressCallback
) -> tuple[dict[int, Path], dict[str, Path]]:
    pictures: dict[int, Path] = {}
    galleries: dict[str, Path] = {}
    for finding in dict.fromkeys(mistake.finding for mistake in mistakes):
        places = [place for place, mistake in enumerate(mistakes) if mistake.finding == finding]
        shown, captions = [], []
        for place, path, result in _explained(classifier, mistakes, places, root, finding):
            if isinstance(result, CxrError):
                log.warning("%s: %s", path, result)
                continue
            overlay = result[0].overlay()
            mistake = mistakes[place]
            stem = f"{finding.replace(' ', '_')}_{mistake.kind}_{mistake.rank:03d}"
            pictures[place] = folder / f"{stem}.png"
            write_png(pictures[place], overlay)
            shown.append(overlay)
            captions.append(
                f"{mistake.kind}\n{mistake.study}\nprobability {mistake.probability:.3f}\n"
                f"threshold {mistake.threshold:.2f}{', map stretched' if result[0].stretched else ''}"
            )
            progress(Progress("mistakes", len(pictures), len(mistakes)))
        if shown:
            galleries[finding] = folder / f"gallery_{finding.replace(' ', '_')}.png"
            write_png(galleries[finding], contact_sheet(shown, captions))
    return pictures, galleries


def _explained(
    classifier: Classifier, mistakes: tuple[Mistake, ...], places: Sequence[int], root: Path, finding: str
) -> Iterator[tuple[int, Path, tuple[Explanation, ...] | CxrError]]:
    """Explain mistakes, the missed ones with stretched maps: their probability is low, so the map would not be seen."""
    missed = [place for place in places if mistakes[place].kind == MistakeKind.FALSE_NEGATIVE]
    others = [place for place in places if place not in missed]
    for chosen, stretch in ((others, False), (missed, True)):
        paths = [root / mistakes[place].path for place in chosen]
        found = classifier.explain_many(paths, finding, stretch=stretch)
        yield from ((place, path, result) for place, (path, result) in zip(chosen, found, strict=True))
