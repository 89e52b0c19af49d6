"""The commands that look: `status`, `verify`, `doctor`, `sources`; and `stop`, which ends runs."""

import argparse
import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from crawler.answer import GENIUS, noun_of
from crawler.cli.options import (
    ENV_FILE,
    Commands,
    add_command,
    add_range,
    caller,
    checked_range,
    command,
    count,
    overrides_of,
    print_json,
    reading_options,
    settings_of,
    site_options,
    store_options,
)
from crawler.errors import CrawlerError, RequestError
from crawler.frontier.verdict import failure_sentence
from crawler.page.status_page import moment, page_of
from crawler.request.crawl_request import songs
from crawler.settings.reading import repeat_options
from crawler.settings.settings import Settings
from crawler.store.contract import Store
from crawler.store.control import order_stop
from crawler.store.coverage import Coverage, coverage_of
from crawler.store.opening import LIST_SECONDS, open_store, read_identity

if TYPE_CHECKING:
    from crawler.store.coverage import VerifyReport

VERIFY_SECONDS = 3600.0
"""Time for reading all blocks of a range."""

_SHOWN_GAPS = 10
_SHOWN_NUMS = 6

_STATUS = """\
Tell what the store holds and what it lacks, from a listing alone: no block is read, no page asked."""

_VERIFY = """\
Prove that the store holds every number of the range exactly once, by reading it all.

Ends at the first counter-example, and names it. START is included, STOP is not. Numbers that
failed have a record, but are not known, so they count against it."""

_STOP = """\
Tell every run on this store to stop, wherever it runs. They look every 5 s, store what they have,
and end. Runs that begin later are not concerned."""


_DOCTOR = """\
Look at the token, the store, the queue, robots.txt, the site and the clock; say what is wrong.

Asks the site for one song, shows what would be kept of it, field by field, and makes sure that the
store can be written, as every run does first. The token is never shown."""

_DOCTOR_EXAMPLES = """\
examples:
  %(prog)s
  %(prog)s 378195 --store gs://my-bucket/genius
  %(prog)s 1 --source discogs.toml

exit codes:
  0 a crawl would work, 1 it would not"""

_SOURCES = "List the sources that --source knows by name, with address and token."
_SOURCES_MORE = "Another one is a .toml file: docs/sources.md says what stands in it."


def add_commands(commands: Commands) -> None:
    """Add these commands to the command line."""
    examples = (
        "examples:\n  %(prog)s\n  %(prog)s --store gs://my-bucket/genius --json\n"
        "  %(prog)s --html coverage.html    one file: map, progress, runs, failures"
    )
    summary = "what is settled, what is left"
    parser = add_command(commands, "status", status, summary, _STATUS, examples, *reading_options())
    parser.add_argument("--html", metavar="OUT", help="write the coverage page to this file")
    examples = "examples:\n  %(prog)s 1 2001     songs 1 to 2000\n\nexit codes:\n  0 proven, 3 not"
    summary = "prove that nothing is missing"
    parser = add_command(commands, "verify", verify, summary, _VERIFY, examples, *reading_options())
    add_range(parser)
    examples = "examples:\n  %(prog)s --store gs://my-bucket/genius"
    summary = "end all runs on this store within 10 s"
    add_command(commands, "stop", stop, summary, _STOP, examples, *reading_options())
    summary = "say whether a crawl would work, and what to mend"
    parents = store_options(), site_options()
    parser = add_command(commands, "doctor", doctor, summary, _DOCTOR, _DOCTOR_EXAMPLES, *parents)
    help_text = "the song to ask for (default: the first)"
    add = parser.add_argument
    add("song", metavar="SONG", nargs="?", default=argparse.SUPPRESS, help=help_text)
    add("--song", dest="song", help=argparse.SUPPRESS)  # its form in version 1.0
    summary = "list the sources that are built in"
    parser = add_command(commands, "sources", list_sources, summary, _SOURCES, _SOURCES_MORE)
    parser.add_argument("--json", action="store_true", help="print the list as JSON")


def status(args: argparse.Namespace) -> int:
    """Print what a store holds, or write its page; returns 0."""
    settings = settings_of(args, for_site=False)
    store = open_store(settings.store)
    blocks = list(store.list_blocks(timeout=LIST_SECONDS))
    if args.html:
        try:
            Path(args.html).write_text(page_of(store, blocks, settings), encoding="utf-8")
        except OSError as error:
            why = error.strerror or error
            raise CrawlerError(f"{args.html} cannot be written: {why}") from error
    held = coverage_of(blocks)
    if args.json:
        print_json(held)
        return 0
    for line in _status_lines(held, settings, _noun(store)):
        print(line)
    if args.html:
        print(f"The page: {args.html}")
    return 0


def verify(args: argparse.Namespace) -> int:
    """Print whether a range is proven; returns 0 or 3."""
    from crawler.store.coverage import verify as prove

    start, stop_num = checked_range(args.start, args.stop)
    settings = settings_of(args, for_site=False)
    store = open_store(settings.store)
    report = prove(store, start, stop_num, timeout=VERIFY_SECONDS)
    if args.json:
        print_json(report)
    else:
        print(_verdict(report, _noun(store)))
        for line in _doubtful_lines(_UNPROVEN, report.unproven, settings, _noun(store)):
            print(line)
    return 0 if report.problem is None and not report.failed else 3


def stop(args: argparse.Namespace) -> int:
    """Order all runs on a store to stop; returns 0."""
    settings = settings_of(args, for_site=False)
    store = open_store(settings.store)
    order = order_stop(store, now=datetime.now(UTC), by=caller())
    if args.json:
        print_json(order)
    else:
        print(f"Ordered: every run on {settings.store} stores what it has and ends within 10 s.")
        if read_identity(store, timeout=LIST_SECONDS) is None:
            print("No run has ever begun there: is that the store you mean?")
    return 0


def _verdict(report: "VerifyReport", noun: str) -> str:
    here = songs(report.start, report.stop, noun)
    if report.problem is not None:
        return f"Not proven, {here}: {report.problem}."
    known = f"{report.found:,} found, {report.missing:,} missing"
    if report.failed:
        return f"Each of {here} has one record: {known}, but {report.failed:,} failed: not known."
    return f"Proven: each of {here} has exactly one record: {known}."


def _noun(store: Store) -> str:
    known = read_identity(store, timeout=LIST_SECONDS)
    return noun_of(GENIUS if known is None else known.source)


def _status_lines(held: Coverage, settings: Settings, noun: str) -> Iterator[str]:
    location = settings.store
    if held.first_num is None or held.last_num is None:
        yield f"{location} holds no {noun}s yet."
        yield f"To begin: {_crawl_again(1, 2001, settings=settings)}"
        return
    here = songs(held.first_num, held.last_num + 1, noun)
    yield f"{location}: {here} in {count(held.blocks, 'block')}."
    yield f"{held.found:,} found, {held.missing:,} missing, {held.failed:,} failed."
    if held.oldest_fetched_at is not None:
        yield f"Last found: {noun} {held.last_found}. Oldest record: {moment(held.oldest_fetched_at)}."
    for reason, how_many in held.reasons.items():
        named = _some(held.failed_nums.get(reason, []), how_many, noun)
        yield f"  failed: {how_many:,} {reason}{named}: {failure_sentence(reason)}"
    if held.next_try_at is not None:
        yield f"What failed is worth asking again from {moment(held.next_try_at)}."
    yield from _gap_lines(held, noun)
    yield from _doubtful_lines(_UNPROVEN, held.unproven, settings, noun)
    yield from _doubtful_lines(_ODD_TIMES, held.odd_times, settings, noun)
    yield _left(held.not_asked, settings.rate)


_UNPROVEN = "missing without proof that the site was well", "--recheck", "missing"
_ODD_TIMES = (
    "times that cannot be, of a machine whose clock was wrong",
    "--refresh-older-than-days",
    "0",
)


def _doubtful_lines(
    doubt: tuple[str, str, str],
    stretches: Sequence[tuple[int, int]],
    settings: Settings,
    noun: str,
) -> Iterator[str]:
    """Name stretches that are worth asking again, why, and with what command."""
    why, *options = doubt
    for start, stop in stretches[:_SHOWN_GAPS]:
        yield f"  {why}: {songs(start, stop, noun)}"
        yield f"    to ask them again: {_crawl_again(start, stop, *options, settings=settings)}"
    if len(stretches) > _SHOWN_GAPS:
        yield f"  and {len(stretches) - _SHOWN_GAPS:,} more such stretches"


def _crawl_again(start: int, stop: int, *how: str, settings: Settings) -> str:
    options = [*how, *(repeat_options(settings) or []), "--store", settings.store]
    return command(["crawl", str(start), str(stop), *options])


def _some(nums: list[int], how_many: int, noun: str) -> str:
    """Return numbers to look at, in brackets; without commas, since they are to be pasted."""
    shown = ", ".join(str(num) for num in nums[:_SHOWN_NUMS])
    such_as = "such as " if how_many > min(len(nums), _SHOWN_NUMS) else ""
    return f" ({such_as}{noun if how_many == 1 else noun + 's'} {shown})" if shown else ""


def _gap_lines(held: Coverage, noun: str) -> Iterator[str]:
    for gap in held.gaps[:_SHOWN_GAPS]:
        yield f"  not asked: {gap.not_asked:,} of {songs(gap.start, gap.stop, noun)}"
    more = len(held.gaps) - _SHOWN_GAPS + held.gaps_left_out
    if more > 0:
        yield f"  and {count(more, 'more gap')}"


def _left(not_asked: int, rate: float) -> str:
    if not not_asked:
        return "Nothing is left in between."
    if not rate:
        return f"{not_asked:,} are left in between."
    takes = timedelta(seconds=round(not_asked / rate))
    return f"{not_asked:,} are left in between: {takes} at {rate:g} a second."


_MARKS = {"ok": "ok   ", "note": "note ", "wrong": "WRONG"}


def doctor(args: argparse.Namespace) -> int:
    """Print one line for each part; returns 0 or 1."""
    from crawler.doctor import examine

    try:
        song_num = None if args.song is None else checked_range("0", args.song)[1]
    except RequestError as error:
        message = str(error).replace("STOP", "SONG")
        raise RequestError(error.status, error.code, "song", message) from None
    findings = []
    for finding in examine(os.environ, env_file=ENV_FILE, song_num=song_num, **overrides_of(args)):
        findings.append(finding)
        if not args.json:
            print(f"{_MARKS[finding.verdict]}  {finding.part:<8}  {finding.words}", flush=True)
    if args.json:
        print_json(findings)
    return 1 if any(finding.verdict == "wrong" for finding in findings) else 0


def list_sources(args: argparse.Namespace) -> int:
    """Print one line for each built-in source; returns 0."""
    from crawler.source.declared import built_in_names, load_declaration

    declared = [load_declaration(name) for name in built_in_names()]
    if args.json:
        rows = [{"name": d.name, "base_url": d.base_url, "token": d.token} for d in declared]
        print_json(rows)
        return 0
    for each in declared:
        token = f"needs {each.token}" if each.token else "no token"
        print(f"{each.name:<12} {each.base_url:<40} {token}")
    return 0
