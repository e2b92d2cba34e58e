"""Finding the weights of a network in a checkpoint of any kind: names and tensors, and findings where it names them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from cxrtool.errors import ModelError
from cxrtool.model.torch_file import StoredTensor, TorchFile, read_torch_file
from cxrtool.model.unpickling import Name, PickleError, StandIn

STATE_KEYS = ("model_state_dict", "state_dict", "model", "network", "net", "weights", "module")
"""Where trainers put the weights, in the order in which they are looked for."""
_LARGEST_FILE = 2 * 2**30
_DEEPEST = 64
_MOST_MODULES = 10_000
"""Modules of a pickled network, of which a DenseNet121 has 433. A hostile one holds itself many times over."""
_NAMES_OF_FINDINGS = ("pathologies", "targets", "findings", "labels", "class_names", "classes")
_ADVICE = "Give a file of torch.save (.pt, .pth, .pth.tar, .ckpt) or a .safetensors file."


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Weights found in a file.

    Attributes:
        tensors: tensors by name, as the file names them.
        findings: names of the outputs as the file gives them, an empty text for an output without a meaning; empty if
            it names none.
        place: where the weights were found, for messages: ``state_dict``, ``a pickled DenseNet``.
    """

    tensors: Mapping[str, Tensor]
    findings: tuple[str, ...] = ()
    place: str = ""


def read_checkpoint(path: Path) -> Checkpoint:
    """Read the weights in a file. Nothing in it is run, whatever it contains; see `cxrtool.model.unpickling`.

    Args:
        path: a file of `torch.save`, or a safetensors file.

    Raises:
        ModelError: the file is missing, too large, damaged, of another kind, or has no weights.
    """
    if not path.is_file():
        raise ModelError(f"{path} is not a file", "Name a checkpoint (.pt, .pth, .ckpt, .safetensors).")
    size = path.stat().st_size
    if size > _LARGEST_FILE:
        raise ModelError(f"{path} has {size:,} bytes; the limit is {_LARGEST_FILE:,}", "Save the weights alone.")
    try:
        if path.suffix == ".safetensors":
            return Checkpoint(load_file(path))
        file = read_torch_file(path)
        found = _find(file.content, set())
        if found is None:
            raise ModelError(
                f"{path} contains no weights; nothing of it was run",
                f"Tensors were looked for at the top, under {', '.join(STATE_KEYS)}, and in pickled networks.",
            )
        return _read(found, file)
    except PickleError as error:
        raise ModelError(f"{path} is not a checkpoint, or is damaged: {error}", _ADVICE) from None
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} cannot be read ({error})", _ADVICE) from None


@dataclass(frozen=True, eq=False)
class _Found:
    tensors: Mapping[str, StoredTensor]
    names: object = ()
    place: str = ""


def _read(found: _Found, file: TorchFile) -> Checkpoint:
    tensors = {name: file.tensor(stored) for name, stored in found.tensors.items()}
    names = found.names if isinstance(found.names, (list, tuple)) else ()
    findings = tuple(name for name in names if isinstance(name, str))
    return Checkpoint(tensors, findings if len(findings) == len(names) else (), found.place)


def _find(content: object, seen: set[int]) -> _Found | None:
    """Return the weights in `content`: its own tensors, or what it holds under a usual key, or in a pickled network.

    `seen` has the objects that were searched: one that holds another many times, or itself, is searched once.
    """
    if id(content) in seen or len(seen) > _DEEPEST:
        return None
    seen.add(id(content))
    if isinstance(content, StandIn):
        tensors = dict(_tensors_of_module(content))
        return _Found(tensors, _first_of(_attributes(content)), f"a pickled {_class_of(content)}") if tensors else None
    if not isinstance(content, Mapping):
        return None
    for key in STATE_KEYS:
        found = _find(content[key], seen) if key in content else None
        if found is not None:
            return _Found(found.tensors, found.names or _first_of(content), found.place or key)
    tensors = {str(name): value for name, value in content.items() if isinstance(value, StoredTensor)}
    return _Found(tensors) if tensors else None


def _first_of(content: Mapping[object, object]) -> object:
    return next((content[name] for name in _NAMES_OF_FINDINGS if content.get(name)), ())


def _class_of(module: StandIn) -> str:
    return module.name.name[:40] if isinstance(module.name, Name) else "object"


def _attributes(module: StandIn) -> Mapping[object, object]:
    return module.state if isinstance(module.state, Mapping) else {}


def _tensors_of_module(module: StandIn) -> Iterator[tuple[str, StoredTensor]]:
    """Yield parameters and buffers of a pickled torch module and of the modules in it, under their dotted names.

    Raises:
        PickleError: there are more than `_MOST_MODULES` modules.
    """
    waiting = [("", module)]
    for count in range(_MOST_MODULES + 1):
        if not waiting:
            return
        if count == _MOST_MODULES:
            raise PickleError(f"a pickled network has more than {_MOST_MODULES:,} modules")
        prefix, one = waiting.pop()
        attributes = _attributes(one)
        for kind in ("_parameters", "_buffers"):
            for name, value in _items(attributes.get(kind)):
                if isinstance(value, StoredTensor):
                    yield f"{prefix}{name}", value
        inner = _items(attributes.get("_modules"))
        waiting += [(f"{prefix}{name}.", value) for name, value in inner if isinstance(value, StandIn)]


def _items(value: object) -> list[tuple[object, object]]:
    return list(value.items()) if isinstance(value, Mapping) else []
