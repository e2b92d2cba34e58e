import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cxrtool.data.stratify import stratify


@given(
    rates=st.lists(st.floats(0.01, 0.6), max_size=6),
    groups=st.integers(1, 300),
    valid=st.floats(0, 0.4),
    test=st.floats(0, 0.4),
    seed=st.integers(0, 1000),
)
def test_every_group_has_one_part_and_parts_have_their_sizes(
    rates: list[float], groups: int, valid: float, test: float, seed: int
) -> None:
    labels = np.random.default_rng(seed).random((groups, len(rates))) < np.array(rates)
    shares = (1 - valid - test, valid, test)
    parts = stratify(labels, shares, seed)
    assert parts.shape == (groups,)
    assert set(parts) <= {part for part, share in enumerate(shares) if share > 0}
    np.testing.assert_array_equal(parts, stratify(labels, shares, seed))
    if not len(rates):
        sizes = np.bincount(parts, minlength=3)
        assert (np.abs(sizes - groups * np.array(shares)) <= 1).all()


def test_disjoint_labels_are_spread_as_exactly_as_counts_allow() -> None:
    labels = np.zeros((200, 3), dtype=np.bool_)
    labels[:10, 0], labels[10:40, 1], labels[40:140, 2] = True, True, True
    parts = stratify(labels, (0.7, 0.1, 0.2), seed=5)
    counts = [[int(labels[parts == part, column].sum()) for part in range(3)] for column in range(3)]
    assert counts == [[7, 1, 2], [21, 3, 6], [70, 10, 20]]
    assert np.bincount(parts).tolist() == [140, 20, 40]


def test_labels_that_go_together_keep_their_shares_where_chance_would_not() -> None:
    rng = np.random.default_rng(1)
    common = rng.random(2000)
    labels = np.stack([common + 0.5 * rng.random(2000) < limit for limit in (0.15, 0.3, 0.6, 1.0)], axis=1)
    parts = stratify(labels, (0.8, 0.1, 0.1), seed=0)
    for part, share in enumerate((0.8, 0.1, 0.1)):
        assert (np.abs(labels[parts == part].sum(axis=0) - share * labels.sum(axis=0)) <= 1.5).all()


def test_another_seed_gives_other_groups() -> None:
    labels = np.random.default_rng(0).random((100, 2)) < 0.3
    assert (stratify(labels, (0.5, 0.5), 0) != stratify(labels, (0.5, 0.5), 1)).any()
