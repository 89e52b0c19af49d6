"""What the page says in words."""

import pytest

from crawler.page.words import crawl, duration, numbers, share, some


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "1 second"),
        (59.6, "1 minute"),
        (61, "1 minute 1 second"),
        (7500, "2 hours 5 minutes"),
        (86_400, "1 day"),
        (86_401, "1 day"),
        (2_110_000, "24 days 10 hours"),
    ],
)
def test_a_duration_has_its_two_largest_units(seconds, words):
    """Nobody wants the seconds of a week."""
    assert duration(seconds) == words


def test_ranges_are_written_as_people_do():
    """Both ends are included, and one number is itself."""
    assert numbers(1000, 2000) == "1,000 to 1,999"
    assert numbers(7, 8) == "7"


def test_some_numbers_say_how_many_more_there_are():
    """Whoever reads a few of many knows that."""
    assert some([7, 2017], 2) == "7, 2,017"
    assert some([7, 2017], 1000) == "7, 2,017 and 998 more"


def test_a_command_names_its_store():
    """A store of any name stays one word of the shell's."""
    assert crawl(1, 9, "gs://b/p") == "python -m crawler crawl 1 9 --store gs://b/p"
    assert crawl(1, 9, "a;b") == "python -m crawler crawl 1 9 --store 'a;b'"


@pytest.mark.parametrize(
    ("part", "whole", "words"),
    [(0, 0, "0 %"), (1, 3, "33.3 %"), (999_999, 1_000_000, "99.9 %"), (5, 5, "100 %")],
)
def test_only_what_is_whole_is_a_hundred_per_cent(part, whole, words):
    """One number left of a million is not rounded away."""
    assert share(part, whole) == words
