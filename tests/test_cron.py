"""Cron texts: which are well-formed, and how long a schedule of them is quiet at most."""

import pytest

from crawler.deployment.schedule import CRONS, longest_gap_seconds

HOUR, DAY = 3600, 86_400


@pytest.mark.parametrize(
    ("cron", "seconds"),
    [
        ("* * * * *", 60),
        ("*/15 * * * *", 15 * 60),
        ("*/45 * * * *", 45 * 60),
        ("7 * * * *", HOUR),
        ("0,20 * * * *", 40 * 60),
        ("0 */4 * * *", 4 * HOUR),
        ("0 */5 * * *", 5 * HOUR),
        ("5 4 * * *", DAY),
        ("0 6,18 * * *", 12 * HOUR),
        ("0 9-17 * * *", 16 * HOUR),
        ("0 0-20/10 * * *", 10 * HOUR),
        ("30 2 * * 1", 7 * DAY),
        ("30 2 * * SUN", 7 * DAY),
        ("30 2 * * 7", 7 * DAY),
        ("0 9 * * 1-5", 3 * DAY),
        ("0 9 * * mon-fri", 3 * DAY),
        ("0 0 1 * *", 31 * DAY),
        ("0 0 */10 * *", 10 * DAY),
        ("0 0 1 JAN *", 366 * DAY),
        ("0 0 29 2 *", 1461 * DAY),
        ("0 0 1 * 1", 7 * DAY),
    ],
)
def test_the_longest_gap_is_that_of_the_text(cron, seconds):
    """Nights, weekends and short months are in it; a day of month or of week is enough."""
    assert longest_gap_seconds(cron) == seconds


def test_our_own_intervals_are_what_their_cron_texts_say():
    """Seconds and text of each are the same."""
    assert {longest_gap_seconds(cron): cron for cron in CRONS.values()} == CRONS


@pytest.mark.parametrize(
    "cron",
    [
        "",
        "a b c d e",
        "* * * *",
        "* * * * * *",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * * 13 *",
        "* * * * 8",
        "*/0 * * * *",
        "*/75 * * * *",
        "5/10 * * * *",
        "9-5 * * * *",
        "1,,2 * * * *",
        "-1 * * * *",
        "* * * * MOO",
        "0 0 31 2 *",
        "every day at noon UTC",
        "٣ * * * *",
    ],
)
def test_what_is_no_cron_text_is_refused(cron):
    """So is a day that never comes."""
    with pytest.raises(ValueError, match=r"\S"):
        longest_gap_seconds(cron)
