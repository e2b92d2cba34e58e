"""safetensors' own reader gives back what was written."""

import struct

import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import Tensor

from cxrtool.model.tensor_file import TYPE_NAMES, tensor_file

shapes = st.lists(st.integers(0, 4), max_size=4)
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda name: name != "__metadata__")


def tensor_of(shape: list[int], dtype: torch.dtype, reverse: bool) -> Tensor:
    """A tensor of random numbers, with its dimensions reversed in memory if asked."""
    values = torch.randint(-9, 9, shape).to(dtype)
    return values.permute(list(reversed(range(values.dim())))) if reverse else values


tensors = st.dictionaries(
    names, st.builds(tensor_of, shapes, st.sampled_from(list(TYPE_NAMES)), st.booleans()), max_size=5
)


@given(tensors, st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), names))
def test_everything_is_read_back(written: dict[str, Tensor], metadata: dict[str, str]) -> None:
    content = b"".join(tensor_file(written, metadata))
    read = load(content)
    assert read.keys() == written.keys()
    for name, tensor in written.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor)
    assert (struct.unpack("<Q", content[:8])[0] + 8) % 8 == 0


def test_the_file_is_the_one_that_safetensors_writes() -> None:
    written = {"b": torch.randn(3, 2), "a": torch.arange(4), "c": torch.tensor(1.5)}
    assert b"".join(tensor_file(written, {"key": 'a "value"\n'})) == save(written, {"key": 'a "value"\n'})


def test_numbers_are_not_copied() -> None:
    tensor = torch.zeros(5)
    *_, numbers = tensor_file({"a": tensor}, {})
    tensor += 1
    assert bytes(numbers) == struct.pack("<5f", 1, 1, 1, 1, 1)
