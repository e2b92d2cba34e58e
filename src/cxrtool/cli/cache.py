"""``cxr cache``"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cxrtool.cells import cell
from cxrtool.cli import console
from cxrtool.cli.options import LIMITS, SHEETS, JsonOption, settings_options
from cxrtool.cli.signals import graceful_stop
from cxrtool.errors import RequestError
from cxrtool.resolved_settings import ResolvedSettings, load_settings
from cxrtool.settings import Settings

if TYPE_CHECKING:
    from cxrtool.data.cache import CacheResult

_EXAMPLES = 5


@settings_options(
    "train.image_size",
    "train.fit",
    *SHEETS,
    "data.views",
    "data.max_missing",
    "data.allow_outside",
    "data.cache_dir",
    *LIMITS,
    "runtime.workers",
)
def cache(
    resolved: ResolvedSettings,
    data: Annotated[Path, typer.Argument(help="Data folder in CheXpert's layout.")],
    split: Annotated[
        list[str] | None,
        typer.Option("--split", help="Split to cache; repeat for several. \\[default: train and valid]"),
    ] = None,
    remove: Annotated[
        bool, typer.Option("--remove", help="Remove every cache of this data folder and build none.")
    ] = False,
    json_output: JsonOption = False,
) -> None:
    """Decode and resize every image once and keep the pixels, for `cxr train --cache`.

    A cache that is up to date is kept. It is rebuilt when images, sheet, size or preprocessing have changed. Exits
    with 1 if an image cannot be read, because training would stop at it.

    \b
    cxr cache CheXpert-v1.0-small
    cxr cache CheXpert-v1.0-small --cache-dir /scratch/pixels --image-size 224
    cxr cache CheXpert-v1.0-small --remove
    """
    from cxrtool.data.cache import caches_folder, remove_caches

    settings = _with_data_folder(resolved, data)
    if remove:
        place = caches_folder(settings.data)
        freed = remove_caches(settings.data)
        if json_output:
            console.print_json({"folder": str(place), "removed_bytes": freed})
        else:
            console.say(f"removed from {place}: {_size(freed)}")
        return
    results = _prepare(settings, split)
    if json_output:
        console.print_json({"data": str(data), "caches": [{"split": n} | one.to_dict() for n, one in results.items()]})
    else:
        _show(results, settings)
    if any(result.unreadable for result in results.values()):
        raise typer.Exit(1)


def _with_data_folder(resolved: ResolvedSettings, data: Path) -> Settings:
    values = {key: value for key, value, _ in resolved.rows()}
    return load_settings(values | {"data.root": data}, environ={}, origin="command line").settings


def _prepare(settings: Settings, splits: list[str] | None) -> dict[str, "CacheResult"]:
    from cxrtool.data.cache import open_cache
    from cxrtool.data.dataset import Dataset
    from cxrtool.data.preprocessing import Preprocessing
    from cxrtool.data.radiograph import Reading

    dataset = Dataset(settings.data, undivided="train")
    present = dataset.available
    names = splits or [name for name in present if name != "test"]
    for name in names:
        if name not in present:
            raise RequestError(
                f"--split {name}: {settings.data.folder} has no such split", f"It has {', '.join(present)}."
            )
    manifests = {name: dataset.usable(name) for name in names}
    preprocessing = Preprocessing(image_size=settings.train.image_size, fit=settings.train.fit)
    reading = Reading.from_settings(preprocessing, settings.runtime)
    with graceful_stop() as stop, console.progress_bar() as progress:
        return {
            name: open_cache(manifest, settings.data, reading, progress, stop) for name, manifest in manifests.items()
        }


def _show(results: dict[str, "CacheResult"], settings: Settings) -> None:
    rows = []
    for name, result in results.items():
        found: dict[str, Any] = result.to_dict()
        rate = found["images_per_second"]
        cells = [result.state, cell(result.seconds, 1), "" if rate is None else cell(rate, 0)]
        rows.append([name, len(result.cache), _size(result.size), *cells, str(result.cache.folder)])
    console.print_table("pixel cache", ["split", "images", "size", "state", "s", "images/s", ""], rows)
    for result in results.values():
        for text in result.unreadable[:_EXAMPLES]:
            console.say(f"unreadable: {text}")
        if len(result.unreadable) > _EXAMPLES:
            console.say(f"and {len(result.unreadable) - _EXAMPLES} more; --json lists them all")
    if not any(result.unreadable for result in results.values()):
        console.next_step("train", *_cache_option(settings), "--data", settings.data.root)


def _cache_option(settings: Settings) -> tuple[object, ...]:
    return ("--cache",) if settings.data.cache_dir is None else ("--cache-dir", settings.data.cache_dir)


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("cache")(cache)
