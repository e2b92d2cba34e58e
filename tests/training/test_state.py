"""The state from which a run continues is read back exactly, or refused."""

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.optim import Adam

from cxrtool.data.preprocessing import Preprocessing
from cxrtool.errors import RequestError
from cxrtool.model.densenet import ChestNet, build_network
from cxrtool.training.state import (
    PREVIOUS_STATE_NAME,
    STATE_NAME,
    TrainingState,
    describe_position,
    newest_state,
    read_state,
    restore,
    save_state,
)


def state_at(epoch: int, step: int = 0) -> TrainingState:
    return TrainingState(epoch, 0, None, "", (), {"sheet": "abc"}, step=step, loss_sum=0.5)


def make_step(network: ChestNet, optimizer: Adam) -> None:
    pixels = torch.randint(0, 256, (2, 1, 32, 32), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    optimizer.zero_grad()
    network(pixels).square().sum().backward()
    optimizer.step()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ChestNet, Adam]:
    """A folder with a state after one step, and the network and optimizer that were saved."""
    network = build_network(Preprocessing(32), "none", seed=0).train().to(memory_format=torch.channels_last)
    optimizer = Adam(network.parameters(), lr=1e-2)
    make_step(network, optimizer)
    folder = tmp_path_factory.mktemp("state")
    save_state(folder, state_at(3, 1), network, optimizer)
    return folder, network, optimizer


def test_the_next_step_from_a_saved_state_is_identical(saved: tuple[Path, ChestNet, Adam]) -> None:
    folder, network, optimizer = saved
    state, tensors = read_state(folder / STATE_NAME)
    assert state == state_at(3, 1)
    again = build_network(Preprocessing(32), "none", seed=1).train().to(memory_format=torch.channels_last)
    other = Adam(again.parameters(), lr=1e-2)
    restore(tensors, again, other)
    for parameter, slots in other.state.items():
        assert slots["exp_avg"].stride() == parameter.stride(), "another memory layout sums in another order"
    make_step(network, optimizer)
    make_step(again, other)
    expected = network.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in again.state_dict().items())


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_anywhere_is_refused(
    share: float, bit: int, saved: tuple[Path, ChestNet, Adam], tmp_path: Path
) -> None:
    content = bytearray((saved[0] / STATE_NAME).read_bytes())
    content[int(share * len(content))] ^= 1 << bit
    (tmp_path / STATE_NAME).write_bytes(content)
    with pytest.raises(RequestError, match="cannot be read"):
        read_state(tmp_path / STATE_NAME)


def test_the_previous_state_is_kept_and_used_if_the_newest_is_damaged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    network = ChestNet(Preprocessing(32))
    with pytest.raises(RequestError, match="nothing to resume"):
        newest_state(tmp_path)
    for epoch in (1, 2):
        save_state(tmp_path, state_at(epoch), network, Adam(network.parameters()))
    assert read_state(tmp_path / PREVIOUS_STATE_NAME)[0].epoch == 1
    assert newest_state(tmp_path)[0].epoch == 2
    (tmp_path / STATE_NAME).write_bytes(b"cut")
    assert newest_state(tmp_path)[0].epoch == 1
    assert "1 complete epoch" in caplog.text


def test_positions_are_described_in_words() -> None:
    assert describe_position(state_at(1)) == "1 complete epoch"
    assert describe_position(state_at(0, 1)) == "0 complete epochs and 1 step"
    assert describe_position(state_at(2, 5)) == "2 complete epochs and 5 steps"
