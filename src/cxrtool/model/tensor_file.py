"""Writing safetensors files piece by piece.

`safetensors.torch.save` needs memory for the file twice more, and when there is none it panics instead of raising
MemoryError; `save_file` writes to a temporary name of its own, which a killed process leaves behind.
"""

import json
import struct
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

TYPE_NAMES = {torch.float64: "F64", torch.float32: "F32", torch.int64: "I64"}
"""Names that the format has for the types of weights and of an optimizer's moments."""
_ALIGNMENT = 8


def tensor_file(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> list[memoryview]:
    """Return the content of a safetensors file, as pieces to be written one after the other.

    The pieces share the memory of tensors that are contiguous and on the CPU: they must not change until all are
    written. The format: the length of the header (8 bytes, little-endian), the header (JSON, padded with spaces so that
    numbers start at a multiple of 8), the numbers (https://huggingface.co/docs/safetensors).

    Args:
        tensors: of the types in `TYPE_NAMES`.
        metadata: text kept in the header.
    """
    # Wider types first, so that each tensor starts at a multiple of its width.
    ordered = sorted(tensors.items(), key=lambda named: (-named[1].element_size(), named[0]))
    header = json.dumps({"__metadata__": dict(metadata), **dict(_entries(ordered))}, separators=(",", ":")).encode()
    header += b" " * (-len(header) % _ALIGNMENT)
    return [memoryview(struct.pack("<Q", len(header)) + header), *(_numbers(tensor) for _, tensor in ordered)]


def _entries(ordered: list[tuple[str, Tensor]]) -> Iterator[tuple[str, dict[str, object]]]:
    start = 0
    for name, tensor in ordered:
        end = start + tensor.nbytes
        entry: dict[str, object] = {
            "dtype": TYPE_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
        yield name, entry
        start = end


def _numbers(tensor: Tensor) -> memoryview:
    return tensor.detach().cpu().contiguous().reshape(-1).numpy().view(np.uint8).data
