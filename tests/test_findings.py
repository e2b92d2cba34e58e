import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxrtool.choices import Policy
from cxrtool.errors import RequestError
from cxrtool.findings import (
    CHEXPERT5,
    CHEXPERT14,
    NIH14,
    UncertaintyPolicy,
    canonical,
    parse_findings,
)


@given(st.sampled_from(list(Policy)), st.dictionaries(st.sampled_from(CHEXPERT14.names), st.sampled_from(list(Policy))))
def test_a_policy_survives_a_round_trip_through_text(default: Policy, exceptions: dict[str, Policy]) -> None:
    text = ",".join([default, *(f"{name}={policy}" for name, policy in exceptions.items())])
    policy = UncertaintyPolicy.parse(text)
    assert UncertaintyPolicy.parse(str(policy)) == policy
    assert policy.of(CHEXPERT14) == tuple(exceptions.get(finding, default) for finding in CHEXPERT14)


def test_a_policy_for_a_finding_that_is_not_read_is_refused() -> None:
    with pytest.raises(RequestError, match="Fracture"):
        UncertaintyPolicy.parse("u-ones,Fracture=u-zeros").of(CHEXPERT5)


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("Effusion", "Pleural Effusion"),
        ("Pleural_Thickening", "Pleural Thickening"),
        ("LUNG OPACITY", "Lung Opacity"),
        ("Airspace Opacity", "Lung Opacity"),
        (" edema ", "Edema"),
        ("Lung lesion", "Lung Lesion"),
        ("Something else", "Something else"),
    ],
)
def test_a_finding_is_known_by_its_other_names(written: str, name: str) -> None:
    assert canonical(written) == name


def test_findings_are_a_preset_or_names() -> None:
    assert parse_findings("CheXpert14") == CHEXPERT14
    assert parse_findings("nih14") == NIH14
    assert len(CHEXPERT14) == len(NIH14) == 14
    assert parse_findings("edema, Effusion,My finding").names == ("Edema", "Pleural Effusion", "My finding")
    for text in ("", "Edema,", "Effusion,pleural effusion"):
        with pytest.raises(RequestError):
            parse_findings(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [("u-maybe", "u-ignore"), ("u-ones,Edema", "no finding"), ("", "unknown")],
)
def test_an_invalid_policy_is_refused_with_advice(text: str, words: str) -> None:
    with pytest.raises(RequestError) as caught:
        UncertaintyPolicy.parse(text)
    assert words in f"{caught.value.message} {caught.value.advice}"


def test_an_unknown_finding_suggests_the_closest_name() -> None:
    with pytest.raises(RequestError) as caught:
        CHEXPERT5.find("Plural Efusion")
    assert "'Pleural Effusion'" in caught.value.advice
    assert CHEXPERT5.find(" pleural effusion ") == CHEXPERT5.find("Effusion") == "Pleural Effusion"
