"""Where settings come from, and the values that result.

The command line overrides ``CXR_*`` variables, which override a YAML file, which overrides the defaults.
"""

import difflib
import logging
import os
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict
from pydantic_settings.exceptions import SettingsError

from cxrtool.errors import RequestError
from cxrtool.settings import Settings

log = logging.getLogger(__name__)

ENV_PREFIX = "CXR_"
LARGEST_FILE = 2**16
"""Bytes of a settings file; all settings with their defaults take 2 KiB."""


class _Environment(Settings, BaseSettings):
    """The settings as pydantic-settings reads them from ``CXR_*`` variables."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, env_nested_delimiter="__")


@dataclass(frozen=True)
class ResolvedSettings:
    """Checked settings and the source of each.

    Attributes:
        settings: the values.
        sources: by dotted key, one of ``command line``, ``environment CXR_...``, the YAML file or ``default``.
    """

    settings: Settings
    sources: Mapping[str, str]

    def to_dict(self) -> dict[str, object]:
        """Return nested plain values, ready for YAML and JSON."""
        return self.settings.model_dump(mode="json")

    def to_yaml(self) -> str:
        """Return the values as YAML that ``--config`` reads back."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False)

    def changed(self, source: str, **values: object) -> "ResolvedSettings":
        """Return a checked copy with some values changed.

        Args:
            source: where the new values come from, as `rows` shows it.
            values: new values by dotted key, as ``**{"train.seed": 1}``.

        Raises:
            RequestError: as for `load_settings`.
        """
        merged = load_settings(self.values() | values, environ={})
        return ResolvedSettings(merged.settings, {**self.sources, **dict.fromkeys(values, source)})

    def values(self) -> dict[str, object]:
        """Return the plain value of every setting by dotted key."""
        return dict(_flatten(self.to_dict()))

    def rows(self) -> list[tuple[str, object, str]]:
        """Return (key, value, source) of every setting."""
        return [(key, value, self.sources.get(key, "default")) for key, value in self.values().items()]


AnySettings: TypeAlias = Settings | ResolvedSettings
"""What functions on a whole data set take."""


def resolved(settings: AnySettings) -> ResolvedSettings:
    """`settings` with their sources, which are not known of plain ones."""
    return settings if isinstance(settings, ResolvedSettings) else ResolvedSettings(settings, {})


def load_settings(
    overrides: Mapping[str, object] | None = None,
    config: str | Path | None = None,
    environ: Mapping[str, str] | None = None,
    *,
    origin: str = "argument",
) -> ResolvedSettings:
    """Merge overrides, environment, file and defaults, in this order, and check the result.

    >>> load_settings({"data.root": "CheXpert-v1.0-small", "train.epochs": 3}).settings.train.epochs
    3

    Args:
        overrides: values by dotted key (``train.lr``). None means not given.
        config: a YAML file.
        environ: environment variables; those of the process if None, none at all if ``{}``.
        origin: where the overrides come from, as shown in messages and by `ResolvedSettings.rows`.

    Raises:
        RequestError: a key is unknown, or a value has the wrong type or is out of range.
    """
    given = {key: value for key, value in (overrides or {}).items() if value is not None}
    layers = [
        (str(config), _flat(_read_yaml(Path(config)), f"settings file {config}")) if config else ("", {}),
        ("environment", _flat(_read_environment(os.environ if environ is None else environ), "the environment")),
        (origin, given),
    ]
    values: dict[str, object] = {}
    sources: dict[str, str] = {}
    for source, layer in layers:
        for key, value in layer.items():
            values[key] = value
            sources[key] = f"environment {variable_of(key)}" if source == "environment" else source
    try:
        return ResolvedSettings(Settings(**_nest(values)), sources)
    except ValidationError as error:
        raise _request_error(error, sources) from None


class _Loader(yaml.SafeLoader):
    """Loads plain YAML: each key once, and aliases of single values only, because others nest and grow without end."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):  # type: ignore[no-untyped-call]
            event = self.peek_event()  # type: ignore[no-untyped-call]
            # An anchor is registered before its content, so that an alias of itself is found here too.
            if not isinstance(self.anchors.get(event.anchor), yaml.ScalarNode | None):
                raise yaml.composer.ComposerError(None, None, "an alias of more than one value", event.start_mark)
        return super().compose_node(parent, index)  # type: ignore[no-any-return, no-untyped-call]

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} stands twice", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            text = file.read(LARGEST_FILE + 1)
        if len(text) > LARGEST_FILE:
            raise RequestError(f"settings file {path} has more than {LARGEST_FILE:,} bytes", "Check --config.")
        content = yaml.load(text.decode("utf-8"), Loader=_Loader)
    except RecursionError:
        raise RequestError(f"settings file {path} is nested too deeply", "Write it as 'train: {epochs: 3}'.") from None
    except OSError as error:
        raise RequestError(f"cannot read settings file {path}: {error.strerror}", "Check --config.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        detail = " ".join(str(error).split())
        raise RequestError(f"settings file {path} is not valid YAML: {detail}", "Fix that line.") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise RequestError(
            f"settings file {path} is not a mapping of keys to values", "Write it as 'train: {epochs: 3}'."
        )
    return content


def _read_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    top = {name.upper() for name in Settings.model_fields}
    for name in environ:
        # Others set variables of this prefix too: Kubernetes sets CXR_SERVICE_HOST where a service is called cxr.
        if name.startswith(ENV_PREFIX) and name[len(ENV_PREFIX) :].split("__")[0] not in top:
            near = difflib.get_close_matches(name, [variable_of(key) for key in _known_keys()], n=1, cutoff=0.8)
            if near:
                log.warning("environment variable %s names no setting and is ignored; did you mean %s?", name, near[0])
    source = EnvSettingsSource(_Environment)
    source.env_vars = {name.lower(): value for name, value in environ.items()}
    try:
        return source()
    except SettingsError as error:
        raise RequestError(str(error), "Set one value per variable, as CXR_TRAIN__EPOCHS=3.") from None
    except RecursionError:
        names = [name for name in environ if name.upper().startswith(ENV_PREFIX)]
        longest = max(names, key=lambda name: len(environ[name]))
        raise RequestError(
            f"environment variable {longest} is nested too deeply",
            "Set one value per variable, as CXR_TRAIN__EPOCHS=3.",
        ) from None


def variable_of(key: str) -> str:
    """Return the environment variable of a setting: ``CXR_TRAIN__LR`` for ``train.lr``."""
    return ENV_PREFIX + key.upper().replace(".", "__")


def default_values() -> dict[str, object]:
    """Return the default of every setting by dotted key, as plain values."""
    return ResolvedSettings(Settings(), {}).values()


def _known_keys() -> list[str]:
    return [key for key, _ in _flatten(Settings().model_dump())]


def _flat(tree: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the leaves of `tree` by dotted key; only sections may nest, and sections hold no sections."""
    for section in tree.values():
        for value in section.values() if isinstance(section, Mapping) else ():
            if isinstance(value, Mapping) and any(isinstance(leaf, Mapping | list) for leaf in value.values()):
                raise RequestError(f"{where} is nested too deeply", "Write it as 'train: {epochs: 3}'.")
    return dict(_flatten(tree))


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{prefix}{key}.")
        elif not isinstance(value, Mapping):
            yield f"{prefix}{key}", value


def _nest(values: Mapping[str, object]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in values.items():
        *parents, leaf = key.split(".")
        node = tree
        for parent in parents:
            child = node.setdefault(parent, {})
            node = child if isinstance(child, dict) else node.setdefault(parent + ".", {})
        node[leaf] = value
    return tree


def _request_error(error: ValidationError, sources: Mapping[str, str]) -> RequestError:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    name = key if key.isprintable() else repr(key)
    origin = sources.get(key) or next((sources[k] for k in sources if k.startswith(f"{key}.")), "")
    where = f" ({origin})" if origin else ""
    if first["type"] == "extra_forbidden":
        known = _known_keys()
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
        siblings = [name for name in known if name.rpartition(".")[0] == key.rpartition(".")[0]]
        hint = f"Did you mean {near[0]}? " if near else ""
        return RequestError(f"setting {name}{where} is unknown", f"{hint}Allowed: {', '.join(siblings or known)}.")
    rule = first["msg"].removeprefix("Value error, ")
    shown = "" if isinstance(first["input"], (dict, BaseModel)) else f" = {first['input']!r}"
    return RequestError(f"setting {name}{shown}{where}: {rule}", "`cxr config` prints every setting and its source.")
