"""A bundle's golden images, compared with what this machine gives."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cxrtool.choices import Precision
from cxrtool.errors import ModelError, RequestError
from cxrtool.findings import FINDINGS
from cxrtool.model.bundle import open_bundle, read_header, save_bundle
from cxrtool.phantoms.check_images import check_images
from cxrtool.tasks.verify import record_golden, verify_model
from tests_support import EXACT, bundle_parts, change_header


def test_an_untouched_bundle_passes(bundle: Path) -> None:
    before = bundle.read_bytes()
    result = verify_model(bundle, EXACT)
    assert result.passed
    assert result.same_pixels
    assert list(result.differences) == list(FINDINGS)
    assert max(result.differences.values()) < 1e-5
    assert (result.allowed, result.images, str(result.how)) == (1e-4, 8, "torch in fp32")
    assert result.weights_sha256 == read_header(bundle).weights_sha256
    assert bundle.read_bytes() == before


def test_another_precision_has_another_tolerance(bundle: Path) -> None:
    result = verify_model(bundle, EXACT.model_copy(update={"precision": Precision.BF16}))
    assert (result.allowed, result.how.precision) == (0.02, "bf16")
    assert 1e-6 < max(result.differences.values()) <= 0.02


def test_a_changed_finding_is_named_with_its_difference(bundle: Path) -> None:
    """The digest is that of the changed weights, so that only the golden images can tell."""
    opened = open_bundle(bundle)
    with torch.inference_mode():
        before = torch.sigmoid(opened.network(torch.from_numpy(check_images(opened.header.image_preprocessing))))
    weights = opened.network.state_dict()
    bias = weights["classifier.bias"].clone()
    bias[3] += 0.1
    save_bundle(bundle, weights | {"classifier.bias": bias}, opened.header)
    result = verify_model(bundle, EXACT)
    assert result.failed == (FINDINGS[3],)
    moved = torch.sigmoid(torch.logit(before.double()) + 0.1) - before
    assert result.differences[FINDINGS[3]] == pytest.approx(moved[:, 3].max().item(), abs=1e-5)


def test_a_finding_that_is_not_a_number_fails(bundle: Path) -> None:
    opened = open_bundle(bundle)
    opened.network.classifier.bias.data[1] = torch.nan
    result = verify_model(opened, EXACT)
    assert result.failed == (FINDINGS[1],)
    assert np.isnan(result.differences[FINDINGS[1]])


def test_images_that_are_drawn_differently_are_reported(bundle: Path) -> None:
    golden = read_header(bundle).golden
    assert golden is not None
    change_header(bundle, golden=golden.model_copy(update={"pixels_sha256": "0" * 64}).model_dump(mode="json"))
    result = verify_model(bundle, EXACT)
    assert result.passed
    assert not result.same_pixels


def test_a_bundle_with_fewer_images_is_refused(bundle: Path) -> None:
    golden = read_header(bundle).golden
    assert golden is not None
    change_header(bundle, golden=golden.model_dump(mode="json") | {"logits": golden.logits[:3]})
    with pytest.raises(RequestError, match="keeps 3 golden images, but this version of cxrtool draws 8"):
        verify_model(bundle, EXACT)


def test_golden_images_are_recorded_once_and_the_weights_are_kept(bundle: Path) -> None:
    stored = read_header(bundle).golden
    change_header(bundle, golden=None, format_version=2)
    with pytest.raises(RequestError, match="keeps no golden images") as caught:
        verify_model(bundle, EXACT)
    assert f"cxr verify {bundle} --record" in caught.value.advice
    _, before = bundle_parts(bundle)
    golden = record_golden(bundle)
    header = read_header(bundle)
    assert header.golden == golden
    assert stored is not None
    np.testing.assert_allclose(golden.logits, stored.logits, atol=1e-5)
    assert header.format_version == 3
    assert bundle_parts(bundle)[1] == before
    assert verify_model(bundle, EXACT).passed
    with pytest.raises(RequestError, match="already keeps"):
        record_golden(bundle)


def test_weights_that_do_not_match_their_digest_are_refused(bundle: Path) -> None:
    content = bytearray(bundle.read_bytes())
    content[-5] ^= 1
    bundle.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        verify_model(bundle, EXACT)
    assert caught.value.code == "model-damaged"
