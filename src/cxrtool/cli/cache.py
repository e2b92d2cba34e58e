"""``cxr cache``"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cxrtool.cli import console
from cxrtool.cli.options import LIMITS, JsonOption, settings_options
from cxrtool.cli.signals import graceful_stop
from cxrtool.errors import RequestError
from cxrtool.settings import ResolvedSettings, Settings, load_settings

if TYPE_CHECKING:
    from cxrtool.data.cache import CacheResult

_EXAMPLES = 5


@settings_options(
    "train.image_size",
    "data.views",
    "data.max_missing",
    "data.allow_outside",
    "data.cache_dir",
    *LIMITS,
    "runtime.workers",
)
def cache(
    resolved: ResolvedSettings,
    data: Annotated[Path, typer.Argument(help="A folder in CheXpert's layout.")],
    split: Annotated[
        list[str] | None, typer.Option("--split", help="May stand more than once. \\[default: train and valid]")
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Remove every cache of this data instead.")] = False,
    json_output: JsonOption = False,
) -> None:
    """Decode and resize every image once and keep the pixels, for `cxr train --cache`.

    A cache that fits stays as it is; it is built anew when images, sheet, size or preprocessing have changed. Ends
    with 1 when an image cannot be read: training would stop at it.

    \b
    cxr cache CheXpert-v1.0-small
    cxr cache CheXpert-v1.0-small --cache-dir /scratch/pixels --image-size 224
    cxr cache CheXpert-v1.0-small --remove
    """
    from cxrtool.data.cache import caches_folder, remove_caches

    settings = _of(resolved, data)
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


def _of(resolved: ResolvedSettings, data: Path) -> Settings:
    values = {key: value for key, value, _ in resolved.rows()}
    return load_settings(values | {"data.root": data}, environ={}, origin="command line").settings


def _prepare(settings: Settings, splits: list[str] | None) -> dict[str, "CacheResult"]:
    from cxrtool.data.cache import open_cache
    from cxrtool.data.dataset import load_usable
    from cxrtool.data.manifest import available_splits
    from cxrtool.data.preprocessing import Preprocessing
    from cxrtool.data.radiograph import Reading

    present = available_splits(settings.data.folder)
    wished = splits or [name for name in present if name != "test"]
    for name in wished:
        if name not in present:
            raise RequestError(f"--split {name}: {settings.data.folder} has none", f"It has {', '.join(present)}.")
    manifests = {name: load_usable(settings.data, name) for name in wished}
    reading = Reading.by(Preprocessing(image_size=settings.train.image_size), settings.runtime)
    with graceful_stop() as stop, console.progress_bar() as progress:
        return {
            name: open_cache(manifest, settings.data, reading, progress, stop) for name, manifest in manifests.items()
        }


def _show(results: dict[str, "CacheResult"], settings: Settings) -> None:
    rows = []
    for name, result in results.items():
        found: dict[str, Any] = result.to_dict()
        rate = found["images_per_second"]
        cells = [result.state, f"{result.seconds:.1f}", "" if rate is None else f"{rate:.0f}"]
        rows.append([name, len(result.cache), _size(result.size), *cells, str(result.cache.folder)])
    console.print_table("pixel cache", ["split", "images", "size", "state", "s", "images/s", ""], rows)
    for result in results.values():
        for text in result.unreadable[:_EXAMPLES]:
            console.say(f"unreadable: {text}")
        if len(result.unreadable) > _EXAMPLES:
            console.say(f"and {len(result.unreadable) - _EXAMPLES} more; --json names all")
    if not any(result.unreadable for result in results.values()):
        console.hint(f"next: cxr train {_where(settings)} --data {settings.data.root}")


def _where(settings: Settings) -> str:
    return "--cache" if settings.data.cache_dir is None else f"--cache-dir {settings.data.cache_dir}"


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("cache")(cache)
