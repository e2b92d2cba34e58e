import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxrtool.choices import Policy
from cxrtool.errors import RequestError
from cxrtool.findings import FINDINGS, UncertaintyPolicy, find_finding


@given(st.tuples(*[st.sampled_from(list(Policy))] * 5))
def test_a_policy_is_parsed_from_its_text(policies: tuple[Policy, ...]) -> None:
    policy = UncertaintyPolicy(policies)
    assert UncertaintyPolicy.parse(str(policy)) == policy


@pytest.mark.parametrize(
    ("text", "words"),
    [("u-maybe", "u-ignore"), ("u-ones,Edema", "no finding"), ("u-ones,Oedema=u-ones", "Edema"), ("", "unknown")],
)
def test_a_wrong_policy_is_refused_with_advice(text: str, words: str) -> None:
    with pytest.raises(RequestError) as caught:
        UncertaintyPolicy.parse(text)
    assert words in f"{caught.value.message} {caught.value.advice}"


def test_a_wrong_finding_suggests_the_nearest() -> None:
    with pytest.raises(RequestError) as caught:
        find_finding("Plural Efusion")
    assert "'Pleural Effusion'" in caught.value.advice
    assert find_finding(" pleural effusion ") == FINDINGS[4]
