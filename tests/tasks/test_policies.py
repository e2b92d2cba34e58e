from pathlib import Path

import pytest

from cxrtool.data.dataset import Dataset
from cxrtool.errors import RequestError
from cxrtool.progress import ignore_progress, never_stop
from cxrtool.settings import DataSettings
from cxrtool.tasks.policies import _train_unless_finished, parse_policies
from cxrtool.training.state import newest_state
from tests_support import tiny_training


def test_an_exception_belongs_to_the_policy_before_it() -> None:
    assert parse_policies("u-ignore, u-ones") == ("u-ignore", "u-ones")
    assert parse_policies("u-ones,Edema=u-zeros,u-zeros") == ("u-ones,Edema=u-zeros", "u-zeros")


@pytest.mark.parametrize("text", ["", "u-ignore", "u-ones,u-ones", "u-ignore,u-maybe", "u-ignore,Edema=u-ones"])
def test_fewer_than_two_different_policies_are_refused(text: str) -> None:
    with pytest.raises(RequestError):
        parse_policies(text)


def test_a_finished_run_of_another_policy_is_not_taken_for_this_one(phantoms: Path, run_folder: Path) -> None:
    state, _ = newest_state(run_folder)
    assert (state.epoch, state.fingerprint["policy"]) == (2, "u-ignore")
    dataset = Dataset(DataSettings(root=phantoms))

    def train_there(policy: str) -> None:
        options = tiny_training(phantoms, train__batch_size=8, train__policy=policy)
        _train_unless_finished(options, dataset, run_folder, ignore_progress, never_stop)

    train_there("u-ignore")  # finished: nothing happens
    with pytest.raises(RequestError, match="policy was u-ignore and is now u-ones"):
        train_there("u-ones")
