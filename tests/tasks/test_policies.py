import pytest

from cxrtool.errors import RequestError
from cxrtool.tasks.policies import parse_policies


def test_an_exception_belongs_to_the_policy_before_it() -> None:
    assert parse_policies("u-ignore, u-ones") == ("u-ignore", "u-ones")
    assert parse_policies("u-ones,Edema=u-zeros,u-zeros") == ("u-ones,Edema=u-zeros", "u-zeros")


@pytest.mark.parametrize("text", ["", "u-ignore", "u-ones,u-ones", "u-ignore,u-maybe", "u-ignore,Edema=u-ones"])
def test_fewer_than_two_different_policies_are_refused(text: str) -> None:
    with pytest.raises(RequestError):
        parse_policies(text)
