"""Pictures in two splits. Expected bits are counted from a discrete cosine transform written out here."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import Call
from cxrtool.data.duplicates import BITS, Fingerprint, alike, detail_correlation, duplicates_between, picture_bits


def test_bits_are_the_signs_of_the_low_frequencies() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (128, 192), dtype=np.uint8)
    means = np.rint(pixels.reshape(64, 2, 64, 3).mean(axis=(1, 3)))
    sample = np.arange(64)
    waves = np.array([np.cos(np.pi * frequency * (2 * sample + 1) / 128) for frequency in range(16)])
    expected = (waves @ means @ waves.T).ravel()[1:]
    bits = np.unpackbits(picture_bits(pixels), count=BITS)
    clear = np.abs(expected) > 50  # the sign of a frequency near 0 depends on rounding
    assert clear.sum() > 240
    np.testing.assert_array_equal(bits[clear] == 1, expected[clear] > 0)


def test_pairs_are_those_that_differ_in_few_bits() -> None:
    rng = np.random.default_rng(1)
    first, second = (rng.integers(0, 256, (count, 32), dtype=np.uint8) for count in (50, 40))
    first[:, -1] &= 0xFE  # the last of 256 bits is not used
    second[:, -1] &= 0xFE
    second[7] = first[3]
    second[9] = first[3]
    second[9][:4] ^= 0xFF  # 32 bits
    second[11] = first[20]
    second[11][:5] ^= 0xFF  # 40 bits
    assert alike(first, second, most=36) == [(3, 7, 0), (3, 9, 32)]
    assert alike(first, second) == [(3, 7, 0), (3, 9, 32), (20, 11, 40)]


def test_blocks_do_not_change_the_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    bits = np.random.default_rng(2).integers(0, 256, (30, 32), dtype=np.uint8)
    whole = alike(bits, bits[::-1])
    monkeypatch.setattr("cxrtool.data.duplicates._BLOCK", 7)
    assert alike(bits, bits[::-1]) == whole
    assert len(whole) == 30


def test_detail_is_a_correlation_that_ignores_size_and_brightness() -> None:
    rng = np.random.default_rng(3)
    picture = rng.integers(0, 200, (256, 256), dtype=np.uint8)
    assert detail_correlation(picture, picture) == pytest.approx(1, abs=1e-5)
    assert detail_correlation(picture, 255 - picture) == pytest.approx(-1, abs=1e-3)
    assert detail_correlation(picture, picture // 2 + 60) > 0.95
    assert abs(detail_correlation(picture, rng.integers(0, 200, (256, 256), dtype=np.uint8))) < 0.05
    assert detail_correlation(np.full((64, 64), 7, dtype=np.uint8), picture) == pytest.approx(0, abs=1e-3)


def test_same_bytes_are_not_named_twice_and_bits_alone_do_not_decide() -> None:
    rng = np.random.default_rng(4)
    picture, other = (rng.integers(0, 256, (200, 200), dtype=np.uint8) for _ in range(2))
    pictures = {Path("a"): picture, Path("b"): picture, Path("c"): picture // 2, Path("d"): other}
    bits = np.zeros(32, dtype=np.uint8)
    splits = {
        "train": [Fingerprint("a.jpg", Path("a"), "1", bits)],
        "valid": [Fingerprint("b.jpg", Path("b"), "1", bits), Fingerprint("d.jpg", Path("d"), "3", bits)],
        "test": [Fingerprint("c.jpg", Path("c"), "2", bits), Fingerprint("e.jpg", Path("e"), "4", None)],
    }
    assert duplicates_between(splits, pictures.__getitem__) == [
        "1 image has the same bytes in train and valid (a.jpg and b.jpg)",
        "1 image of train is in test too, saved in another way (a.jpg is c.jpg)",
        "1 image of valid is in test too, saved in another way (b.jpg is c.jpg)",
    ]


def test_the_command_finds_pictures_that_were_saved_again(call: Call, phantoms: Path, tmp_path: Path) -> None:
    good = call("check-data", phantoms, "--duplicates")
    assert good.code == 0, good.stdout
    data = Path(shutil.copytree(phantoms, tmp_path / "data"))
    first, second = sorted((data / "test").rglob("*frontal.jpg"))[:2]
    copy = min((data / "train").rglob("*frontal.jpg"))
    Image.open(first).resize((90, 80)).save(copy, quality=40)
    done = call("check-data", data, "--duplicates", "--json")
    assert done.code == 1
    (error,) = done.json["errors"]
    assert error.startswith("1 image of train is in test too, saved in another way")
    assert f"({copy.relative_to(data)} is {first.relative_to(data)}" in error
    assert str(second.relative_to(data)) not in error
    assert call("check-data", data, "--full").code == 0
