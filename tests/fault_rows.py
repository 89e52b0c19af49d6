"""The list of faults and bad inputs: each row has a number, and what must hold when it happens.

A test shows a row by carrying its number in its name, such as `test_E3_…`, or in the id of one of
its cases; `A9_to_A15` names all rows between the two. `test_fault_rows.py` fails when a row has no
test.
"""

import re
from collections.abc import Iterable

FAULT_ROWS = {
    # The entry point: what callers send.
    "A1": "JSON is read under any of its types, or none",
    "A2": "other types, character sets and encodings are refused unread",
    "A3": "nothing at all is refused",
    "A4": "what is no JSON is refused, with the place",
    "A5": "a byte order mark is accepted",
    "A6": "10 MB of body are refused, memory stays flat",
    "A7": "100,000 brackets are refused at once",
    "A8": "other methods and paths are refused, and start nothing",
    "A9": "only a plain JSON number is a song number",
    "A10": "only canonical ASCII decimals are one in a query",
    "A11": "numbers out of bounds are refused at once",
    "A12": "a range may be empty, but not backward",
    "A13": "a range too long is refused, with the way out",
    "A14": "keys twice, unknown keys, and two answers to one question are refused",
    "A15": "modes, limits and rates are checked",
    "A16": "a slow client holds up nobody, one that leaves loses nothing",
    "A17": "two requests at once keep one pace",
    "A18": "an error nobody foresaw has an id, and shows no secret",
    "A19": "invented headers of a queue lift no limit, hide no error and stop nobody",
    "A20": "forty clients that send a byte a second keep nobody waiting",
    # The wire, from the site to us.
    "B1": "a broken connection is tried again",
    "B2": "a name that nobody knows ends the run early",
    "B3": "a wrong certificate ends the run early",
    "B4": "what trickles or hangs ends at the deadline",
    "B5": "a doubtful length is never stored as found",
    "B6": "an answer that is no HTTP costs no memory",
    "B7": "a redirect is not followed; moved for good to another number is missing",
    "B8": "a damaged encoding is tried again, several whole gzip members are one body",
    "B9": "a body past the cap is cut off, memory stays bounded",
    "B10": "a site that closes its connections is crawled all the same",
    # The body.
    "C1": "a page that is no page fails",
    "C2": "broken JSON fails with its kind",
    "C3": "a byte order mark is accepted",
    "C4": "another shape or another song is never stored",
    "C5": "odd titles are kept as they are",
    "C6": "404, 410 and 451 are missing, and asked once",
    "C7": "a refused token ends the run, and what was settled is stored",
    "C7b": "a challenge page and a 403 that says how long are pauses, for ever it bars the run",
    "C8b": "a passing status is tried again, whatever its number",
    "C9": "no lying spell of ten and more answers is believed",
    "C8": "any other status fails with its number",
    "C10": "a field of another type never costs the song",
    # Pace and overload.
    "D1": "nothing is sent inside a pause",
    "D2": "dates are read in their three forms, by the site's own clock",
    "D3": "an unreadable Retry-After is no exception",
    "D3b": "what a site announces of its limits is kept before the first 429",
    "D4": "a pause longer than the time left ends the run",
    "D5": "a dead site costs a bounded number of requests",
    "D6": "an outage loses nothing, and the pace comes back",
    "D7": "no burst follows a jump of the clock",
    "D7b": "a number that alone answers 429 fails by itself",
    "D8": "the pace holds for a minute",
    "D9": "robots.txt is obeyed as its standard says",
    # The store.
    "E1": "a store that cannot be used fails the run before its first request",
    "E2": "an upload that has to be repeated is one object",
    "E3": "a store that fails for ever ends the run, and nothing is said to be stored that is not",
    "E4": "two runs at once keep each number once",
    "E5": "a broken block is found on reading, and never passed over",
    "E6": "a full disk and a read-only folder are told, what lay there stays whole",
    "E7": "listings of many pages are read whole",
    "E8": "foreign objects are left alone",
    "E9": "another's records and newer formats are refused before the first request",
    "E10": "a site that denies all it had is not believed",
    "E10b": "a bucket or folder in which blocks cannot grow is refused with the cause",
    "E10c": "a mount without synced folders, stable inodes and fine times works",
    "E10d": "a mount without locks is refused, a lock file left behind holds up nobody",
    "E11": "numbers that always fail do not use up the next run",
    "E11b": "a cluster of dead pages costs only itself",
    "E12": "stop orders and pauses from elsewhere are obeyed within 10 s",
    "E13": "times of a wrong clock are named, and a refresh asks them again",
    "E14": "a damaged download is tried again, what is no file is named and left alone",
    "E15": "what version 1.0 made goes on",
    # The process.
    "F1": "kills at random moments lose nothing",
    "F2": "a signal ends the run in seconds, with what was settled stored",
    "F3": "the time budget ends the run in time, with right counts",
    "F4": "running out of memory loses nothing",
    "F5": "a step 1 function that misbehaves costs its own number",
    "F5b": "a step 1 function that swallows errors makes nothing missing",
    "F5c": "a step 1 function that appends whatever came stores nothing but songs",
    "F5d": "a mistake of step 1 itself ends the run at once, with the place and what to write",
    "F5e": "items that are no numbers, appended under any key, work in steps 2 and 3",
    "F6": "it works wherever it is called, and leaves nothing behind",
    "F7": "a queue may deliver twice, late and out of order",
    # Where it runs.
    "H1": "terminals of any encoding and width, and closed ones, change no exit code",
    "H2": "a pod beside a service named crawler starts",
    "H3": "a dead first address costs once, not per connection",
    "H4": "a site with a certificate authority of the user's own is crawled",
    "H6": "a terminal that is closed ends a crawl as SIGTERM does",
    "H5": "asyncio is as before after a crawl inside a running loop",
    # Secrets and people.
    "G1": "the token's bytes are told nowhere",
    "G2": "a token that no header can carry is refused at the start",
    "G3": "a site that echoes the token does not make us tell it",
    "G4": "lines of the log cannot be forged",
}
"""Every row by its number."""

FOR_BOTH_CALLERS = ["B7", "B8", "C6", "C7b", "C8b", "C9", "C10", "D3b", "D7b", "E11b", "H3", "H4"]
"""Lying sites: shown over real sockets for a source and for a step 1 function."""

FOR_BOTH_STORES = ["E10b", "E13", "E14", "E15"]
"""Odd stores: shown for a folder and for a bucket."""

_NUMBERS = re.compile(r"(?<![A-Za-z0-9])([A-H]\d+[b-f]?)(?:_to_([A-H]\d+))?(?![A-Za-z0-9])")


def rows_named(test: str) -> set[str]:
    """Read the rows that a test's name, with the id of its case, carries."""
    name = test.rpartition("::")[2].replace("test_", "")
    order = list(FAULT_ROWS)
    rows: set[str] = set()
    for first, last in _NUMBERS.findall(name.replace("_", "__").replace("__to__", "_to_")):
        if first in FAULT_ROWS and last in FAULT_ROWS:
            rows.update(order[order.index(first) : order.index(last) + 1])
        elif first in FAULT_ROWS:
            rows.add(first)
    return rows


def rows_without_test(tests: Iterable[str]) -> list[str]:
    """Name the rows that no test carries, in order."""
    shown: set[str] = set().union(*map(rows_named, tests))
    return [row for row in FAULT_ROWS if row not in shown]


def rows_shown_halfway(tests: Iterable[str]) -> list[str]:
    """Name the rows that are shown for one caller or one store only, with what lacks."""
    places = dict.fromkeys(FOR_BOTH_CALLERS, ("source", "function"))
    places |= dict.fromkeys(FOR_BOTH_STORES, ("folder", "bucket"))
    shown = {(row, test) for test in tests for row in rows_named(test)}
    return [
        f"{row} for a {place}"
        for row, both in places.items()
        for place in both
        if not any(named == row and place in _words_of(test) for named, test in shown)
    ]


def _words_of(test: str) -> list[str]:
    """Split the names of a test's file and case into words."""
    file, _, name = test.partition("::")
    return re.split(r"[\W_]+", file + " " + name.partition("[")[2])
