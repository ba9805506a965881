"""Groups by length: each text once, and no cut pads less."""

from __future__ import annotations

from itertools import combinations, pairwise

from hypothesis import given
from hypothesis import strategies as st

from calib_ebm.energy.groups import cut_by_length

Lengths = st.lists(st.integers(1, 12), min_size=1, max_size=12)


def padded(lengths: list[int], groups: list[list[int]]) -> int:
    return sum(max(lengths[row] for row in rows) * len(rows) for rows in groups)


@given(Lengths, st.integers(1, 6))
def test_each_row_is_in_one_group_and_groups_do_not_overlap_in_length(
    lengths: list[int], groups: int
) -> None:
    rows = [part.tolist() for part in cut_by_length(lengths, groups)]
    assert sorted(row for part in rows for row in part) == list(range(len(lengths)))
    assert len(rows) == min(groups, len(set(lengths)))
    for shorter, longer in pairwise(rows):
        assert max(lengths[row] for row in shorter) < min(lengths[row] for row in longer)


@given(Lengths, st.integers(1, 5))
def test_no_cut_into_as_many_groups_pads_less(lengths: list[int], groups: int) -> None:
    """Against trying every cut."""
    ours = padded(lengths, [part.tolist() for part in cut_by_length(lengths, groups)])
    different = sorted(set(lengths))
    every = []
    for cuts in combinations(different[:-1], min(groups, len(different)) - 1):
        limits = [0, *cuts, different[-1]]
        every.append(
            padded(
                lengths,
                [
                    [row for row, length in enumerate(lengths) if low < length <= high]
                    for low, high in pairwise(limits)
                ],
            )
        )
    assert ours == min(every)


def test_equal_groups_would_pad_more() -> None:
    """The control: the cut is where the lengths part, not where the counts do."""
    lengths = [5] * 7 + [50]
    assert padded(lengths, [part.tolist() for part in cut_by_length(lengths, 2)]) == 85
    assert padded(lengths, [[0, 1, 2, 3], [4, 5, 6, 7]]) == 220
