"""Reading of files written by `torch.save`, old and new, for their tensors alone; see `cxrtool.model.unpickling`."""

import io
import math
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cxrtool.model.unpickling import Name, PickleError, StandIn, read_pickle

_TYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_LEGACY_START = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
"""A pickle's start and torch's magic number, after the pickle's protocol."""


@dataclass(frozen=True, eq=False)
class Storage:
    """Numbers in a file, by the key under which it has them."""

    key: str
    dtype: torch.dtype
    count: int


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A tensor that was not read yet.

    Attributes:
        storage: its numbers.
        offset: index of its first number.
        size: its shape.
        stride: distance of neighbours in each dimension.
    """

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class TorchFile:
    """An opened file.

    Args:
        content: what was saved, with a `StoredTensor` for each tensor and a `StandIn` for each unknown object.
        read: function that returns the bytes of a storage by its key; it raises `PickleError` if there are none.

    Attributes:
        content: as given.
    """

    def __init__(self, content: object, read: Callable[[str], bytes | memoryview]) -> None:
        self.content = content
        self._read = read
        self._numbers: dict[str, Tensor] = {}

    def tensor(self, stored: StoredTensor) -> Tensor:
        """Return a tensor as a copy.

        Raises:
            PickleError: its numbers are not in the file, or not as many as it needs.
        """
        storage = stored.storage
        reach = stored.offset + sum((n - 1) * step for n, step in zip(stored.size, stored.stride, strict=True)) + 1
        numel = math.prod(stored.size)
        # A small storage repeated by strides of 0 would fill the memory.
        if numel > storage.count or (numel and reach > storage.count):
            raise PickleError("a tensor is larger than its numbers")
        if not numel:
            return torch.empty(stored.size, dtype=storage.dtype)
        flat = self._flat(storage)
        return flat.as_strided(stored.size, stored.stride, stored.offset).clone(memory_format=torch.contiguous_format)

    def _flat(self, storage: Storage) -> Tensor:
        if storage.key not in self._numbers:
            raw = self._read(storage.key)
            if len(raw) < storage.count * storage.dtype.itemsize:
                raise PickleError("the numbers of a tensor are missing")
            self._numbers[storage.key] = torch.frombuffer(bytearray(raw), dtype=storage.dtype, count=storage.count)
        found = self._numbers[storage.key]
        if found.dtype != storage.dtype or len(found) < storage.count:
            raise PickleError("two tensors read the same numbers in different ways")
        return found


def read_torch_file(path: Path) -> TorchFile:
    """Read a file written by `torch.save`: a zip file, or what torch wrote before version 1.6.

    Raises:
        PickleError: it is neither, damaged, or unpacks to more than its own size.
        OSError: it cannot be read.
    """
    content = path.read_bytes()
    if content[:4] == b"PK\x03\x04":
        return _read_zip(content)
    if content[2 : 2 + len(_LEGACY_START)] == _LEGACY_START:
        return _read_legacy(content)
    raise PickleError("it is no file of torch.save")


def _read_zip(content: bytes) -> TorchFile:
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
        members = archive.infolist()
    except Exception as error:  # noqa: BLE001 - zipfile raises BadZipFile, struct.error and others on bad bytes
        raise PickleError(f"it is a damaged zip file ({type(error).__name__})") from None
    packed = any(member.compress_type != zipfile.ZIP_STORED for member in members)
    if packed or sum(member.file_size for member in members) > len(content):
        raise PickleError("it unpacks to more than its own size, which torch never writes")
    names = {member.filename.partition("/")[2]: member for member in members}

    def read(name: str) -> bytes:
        if name not in names:
            raise PickleError(f"its part {name!r} is missing")
        try:
            return archive.read(names[name])
        except Exception as error:  # noqa: BLE001 - as above
            raise PickleError(f"its part {name!r} is damaged ({type(error).__name__})") from None

    if "byteorder" in names and read("byteorder") != b"little":
        raise PickleError("its numbers are big-endian")
    return TorchFile(read_pickle(io.BytesIO(read("data.pkl")), _KNOWN, _storage), lambda key: read(f"data/{key}"))


def _read_legacy(content: bytes) -> TorchFile:
    """Read magic number, version, machine, content and keys, each a pickle, then the numbers of each key."""
    file = io.BytesIO(content)
    *_, found, keys = (read_pickle(file, _KNOWN, _storage) for _ in range(5))
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise PickleError("its list of tensors cannot be read")
    sizes = {storage.key: storage.dtype.itemsize for storage in _storages(found)}
    place = file.tell()
    numbers: dict[str, memoryview] = {}
    for key in keys:
        count = int.from_bytes(content[place : place + 8], "little", signed=True)
        start, place = place + 8, place + 8 + count * sizes.get(key, 0)
        if count < 0 or place > len(content) or key not in sizes:
            raise PickleError("the numbers of a tensor are missing")
        numbers[key] = memoryview(content)[start:place]

    def read(key: str) -> memoryview:
        if key not in numbers:
            raise PickleError("the numbers of a tensor are missing")
        return numbers[key]

    return TorchFile(found, read)


def _storages(content: object) -> list[Storage]:
    """Return the storages of all tensors in `content`, each object visited once."""
    found: dict[int, Storage] = {}
    seen: set[int] = set()
    waiting = [content]
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, Storage):
            found[id(one)] = one
        elif isinstance(one, StoredTensor):
            waiting.append(one.storage)
        elif isinstance(one, StandIn):
            waiting += [one.arguments, one.state, one.items, one.members]
        elif isinstance(one, Mapping):
            waiting += [*one.keys(), *one.values()]
        elif isinstance(one, (list, tuple, set, frozenset)):
            waiting += list(one)
    return list(found.values())


def _storage(identifier: object) -> object:
    """Return the storage that ``('storage', type, key, location, count)`` names; old files add a sixth part.

    Old files also name the class of a network in this way, with its source code.
    """
    match identifier:
        case ("module", Name() as name, *_):
            return name
        case ("storage", Name(name=kind), str(key), _, int(count), *_) if kind in _TYPES and count >= 0:
            return Storage(key, _TYPES[kind], count)
    raise PickleError("it names numbers in a way that torch.save does not")


def _tensor(arguments: tuple[Any, ...]) -> StoredTensor:
    match arguments:
        case (Storage() as storage, int(offset), tuple(size), tuple(stride), *_) if _fit(offset, size, stride):
            return StoredTensor(storage, offset, size, stride)
    raise PickleError("it has a tensor whose shape cannot be read")


def _fit(offset: int, size: Sequence[object], stride: Sequence[object]) -> bool:
    whole = all(isinstance(value, int) and 0 <= value < 2**40 for value in (offset, *size, *stride))
    return whole and len(size) == len(stride) <= 8


def _parameter(arguments: tuple[Any, ...]) -> StoredTensor:
    if arguments and isinstance(arguments[0], StoredTensor):
        return arguments[0]
    raise PickleError("it has a parameter without a tensor")


def _dictionary(arguments: tuple[Any, ...]) -> dict[str, object]:
    """Return an OrderedDict's content; Python 2 gave its items as a list of pairs."""
    pairs = arguments[0] if arguments else ()
    if isinstance(pairs, (list, tuple)) and all(isinstance(p, (list, tuple)) and len(p) == 2 for p in pairs):
        return {str(key): value for key, value in pairs if isinstance(key, (str, int))}
    raise PickleError("it has a dictionary that cannot be read")


_KNOWN = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch.nn.parameter.Parameter": _parameter,
    "collections.OrderedDict": _dictionary,
    "torch.Size": lambda arguments: tuple(arguments[0]) if arguments and isinstance(arguments[0], list) else (),
}
