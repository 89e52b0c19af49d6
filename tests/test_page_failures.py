"""What failed, by reason, with the numbers to look at."""

from crawler.page.failures import MAX_PLACES, group_failures
from tests.pages import a_block


def test_failures_are_grouped_by_reason_most_first():
    """Each reason has its count and its blocks."""
    groups = group_failures(
        [
            a_block(0, found=990, missing=0, failed=10, reasons={"timeout": 7, "reset": 3}),
            a_block(5000, found=980, missing=0, failed=20, reasons={"reset": 20}),
        ]
    )
    assert [(group.reason, group.failed) for group in groups] == [("reset", 23), ("timeout", 7)]
    assert [(p.start, p.stop, p.failed) for p in groups[0].places] == [
        (0, 1000, 3),
        (5000, 6000, 20),
    ]


def test_neighbouring_blocks_are_one_place():
    """An outage that spoiled three blocks is one range to look at."""
    (group,) = group_failures([a_block(k * 1000, found=899, failed=1) for k in (4, 5, 6)])
    assert [(p.start, p.stop, p.failed) for p in group.places] == [(4000, 7000, 3)]


def test_what_a_block_could_not_name_is_other():
    """A listing names five kinds; the rest is not lost."""
    (first, second) = group_failures([a_block(0, found=890, failed=10, reasons={"timeout": 4})])
    assert (first.reason, first.failed) == ("other", 6)
    assert (second.reason, second.failed) == ("timeout", 4)


def test_of_many_places_the_worst_are_named():
    """The page names some, counts the others, and the sum is of all."""
    blocks = [a_block(k * 2000, found=800, failed=1 + k) for k in range(MAX_PLACES + 5)]
    (group,) = group_failures(blocks)
    assert len(group.places) == MAX_PLACES
    assert group.places_left_out == 5
    assert group.failed == sum(block.failed for block in blocks)
    assert group.places[0].start == 10_000


def test_the_numbers_to_look_at_are_named():
    """Numbers that blocks name stand with their reason; where all are named, it is known."""
    (reset, timeout) = group_failures(
        [
            a_block(0, failed=3, reasons={"reset": 2, "timeout": 1}, nums={"timeout": [17]}),
            a_block(4000, failed=9, reasons={"reset": 9}, nums={"reset": [4001, 4002]}),
        ]
    )
    assert (timeout.nums, timeout.all_named) == ([17], True)
    assert (reset.nums, reset.all_named) == ([4001, 4002], False)


def test_where_nothing_failed_there_is_no_group():
    """No failures, no table."""
    assert group_failures([a_block(0)]) == []
