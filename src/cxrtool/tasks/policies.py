"""Comparison of uncertainty policies: train one model per policy and seed, and compare them."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cxrtool.data.dataset import Dataset
from cxrtool.engines.export import with_export
from cxrtool.errors import RequestError
from cxrtool.evaluation.comparison import Comparison, check_margin, compare
from cxrtool.evaluation.difference import MEAN
from cxrtool.evaluation.pairing import Candidate
from cxrtool.evaluation.table import PredictionTable, to_study_level
from cxrtool.files import write_json
from cxrtool.findings import UncertaintyPolicy
from cxrtool.model.resolve import open_model
from cxrtool.predict.split import predict_split
from cxrtool.progress import ProgressCallback, StopSignal, ignore_progress, never_stop
from cxrtool.resolved_settings import ResolvedSettings
from cxrtool.settings import Settings
from cxrtool.tasks.compare import reference_name, write_comparison
from cxrtool.tasks.evaluate import bootstrap_settings
from cxrtool.training.folder import can_restart
from cxrtool.training.loop import train
from cxrtool.training.state import has_state, newest_state

log = logging.getLogger(__name__)

COMPARISON_NAME = "policies.json"


@dataclass(frozen=True)
class PolicyComparison:
    """Result of `compare_policies`.

    Attributes:
        runs: run folders by policy, one per seed.
        comparisons: by split, ``valid`` and ``test`` as far as the data have them.
        chosen: policy with the best mean AUROC on valid; None if it is undefined.
    """

    runs: Mapping[str, tuple[Path, ...]]
    comparisons: Mapping[str, Comparison]
    chosen: str | None

    def sentences(self) -> tuple[str, ...]:
        """Return the result in words: the policy chosen on valid, then the comparison on each split."""
        sentences = [comparison.sentence() for comparison in self.comparisons.values()]
        if self.chosen is not None:
            sentences.insert(0, f"Chosen on valid by mean AUROC: {self.chosen}. Test data choose nothing.")
        return tuple(sentences)

    def to_dict(self) -> dict[str, object]:
        """Return the document of ``cxr compare --train --json``."""
        return {
            "runs": {policy: [str(run) for run in runs] for policy, runs in self.runs.items()},
            "comparisons": {split: comparison.to_dict() for split, comparison in self.comparisons.items()},
            "chosen_on_valid": self.chosen,
            "sentences": list(self.sentences()),
        }


def parse_policies(text: str) -> tuple[str, ...]:
    """Parse policies such as ``u-ignore,u-ones``; an exception ``Finding=policy`` belongs to the policy before it.

    Raises:
        RequestError: a policy is unknown or repeated, or there are fewer than two.
    """
    parts: list[str] = []
    for part in text.split(","):
        if "=" in part and parts:
            parts[-1] += f",{part.strip()}"
        else:
            parts.append(part.strip())
    policies = tuple(str(UncertaintyPolicy.parse(part)) for part in parts)
    if len(policies) < 2 or len(set(policies)) < len(policies):
        raise RequestError(f"--policies {text} names fewer than two different policies", "Use u-ignore,u-ones,u-zeros.")
    return policies


def compare_policies(
    resolved: ResolvedSettings,
    policies: Sequence[str],
    seeds: int,
    out: Path,
    progress: ProgressCallback = ignore_progress,
    stop: StopSignal = never_stop,
    reference: str | None = None,
    margin: float | None = None,
) -> PolicyComparison:
    """Train every policy with every seed, then compare the policies on valid and on test.

    Finished runs are kept and unfinished ones resumed, so that the same call continues after an interruption.

    Args:
        resolved: settings of all runs; policy and seed are replaced.
        policies: two or more policies.
        seeds: number of runs per policy, which have the seeds 0, 1, ...
        out: folder for the runs and policies.json.
        progress: called as images are read.
        stop: see `train`.
        reference: policy that each other is compared with; None compares all pairs.
        margin: margin of non-inferiority, such as 0.02.

    Raises:
        RequestError: the data cannot be used, a run in `out` was made with other settings, `reference` is none of the
            policies, or `margin` is not between 0 and 1.
        InterruptedWorkError: `stop` returned a signal.
    """
    check_margin(margin)
    if reference is not None:
        reference = reference_name(
            str(UncertaintyPolicy.parse(reference)), [Path(policy) for policy in policies], policies
        )
    settings = resolved.settings
    dataset = Dataset(settings.data)
    splits = [split for split in ("valid", "test") if split in dataset.available]
    runs: dict[str, tuple[Path, ...]] = {}
    for policy in policies:
        folders = []
        for seed in range(seeds):
            folder = out / f"{policy.replace(',', '+').replace('=', '-').replace(' ', '')}_seed{seed}"
            settings_of_run, named = _with_policy(resolved, policy, seed), _with_name(progress, folder.name)
            _train_unless_finished(settings_of_run, dataset, folder, named, stop)
            folders.append(folder)
        runs[policy] = tuple(folders)
    comparisons: dict[str, Comparison] = {}
    for split in splits:
        candidates = [
            Candidate(policy, tuple(_table(folder, settings, dataset, split, progress) for folder in folders))
            for policy, folders in runs.items()
        ]
        comparisons[split] = compare(candidates, bootstrap_settings(settings.eval), reference, margin)
        write_comparison(out, comparisons[split])
    result = PolicyComparison(runs, comparisons, _best_on_valid(comparisons))
    write_json(out / COMPARISON_NAME, result.to_dict())
    return result


def _with_policy(resolved: ResolvedSettings, policy: str, seed: int) -> ResolvedSettings:
    return resolved.changed("cxr compare", **{"train.policy": policy, "train.seed": seed})


def _train_unless_finished(
    resolved: ResolvedSettings, dataset: Dataset, folder: Path, progress: ProgressCallback, stop: StopSignal
) -> None:
    options = resolved.settings.train
    begun = has_state(folder) or can_restart(folder)
    if has_state(folder):
        state, _ = newest_state(folder)
        out_of_patience = options.patience and state.epoch - state.best_epoch >= options.patience
        if state.fingerprint.get("policy") == options.policy and (state.epoch >= options.epochs or out_of_patience):
            log.info("%s is finished", folder)
            return
    train(resolved, None if begun else folder, folder if begun else None, progress, stop, dataset)


def _with_name(progress: ProgressCallback, name: str) -> ProgressCallback:
    return lambda step: progress(replace(step, phase=f"{name} {step.phase}"))


def _table(
    folder: Path, settings: Settings, dataset: Dataset, split: str, progress: ProgressCallback
) -> PredictionTable:
    named = _with_name(progress, folder.name)
    with with_export(open_model(folder), settings.runtime) as bundle:
        images, _ = predict_split(bundle, settings, dataset, split, named, "compare --train")
    return to_study_level(images)


def _best_on_valid(comparisons: Mapping[str, Comparison]) -> str | None:
    if "valid" not in comparisons:
        return None
    values = {
        name: rows[MEAN]["auroc"].value
        for name, rows in comparisons["valid"].figures.items()
        if rows[MEAN]["auroc"].value is not None
    }
    return max(values, key=lambda name: values[name] or 0.0) if values else None
