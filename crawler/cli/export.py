"""The command `export`: a store into one file of Parquet, CSV or JSON lines."""

import argparse
from pathlib import Path

import msgspec

from crawler.cli.options import VERBATIM, store_options, store_settings_of
from crawler.cli.request import checked_range
from crawler.cli.words import count, size
from crawler.errors import CrawlerError

_DESCRIPTION = """\
Write all records of a store to one file; the extension says in which format.

  .parquet   typed, compressed; for pandas, DuckDB, BigQuery   pip install pandas pyarrow
  .csv       texts quoted, so that an empty one is not absent  the same
  .jsonl     one JSON object a line                            nothing more to install

The columns follow from what the store holds, not from the data. Memory stays flat, and the file is
there whole or not at all. Start a spreadsheet's import with every text as text: titles may begin
with "="."""

_EXAMPLES = """\
examples:
  %(prog)s songs.parquet
  %(prog)s songs.csv --songs 1 100001
  %(prog)s songs.jsonl --store gs://my-bucket/genius"""


def add_export(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "export",
        help="write the store to a .parquet, .csv or .jsonl file",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=VERBATIM,
        parents=[store_options()],
    )
    parser.add_argument("out", metavar="OUT", type=Path, help="the file; replaced if it is there")
    parser.add_argument(
        "--songs", nargs=2, metavar=("START", "STOP"), help="only these (default: all)"
    )
    parser.set_defaults(run=export)


def export(args: argparse.Namespace) -> int:
    """Export a store as the command says; returns 0.

    Raises:
        CrawlerError: The store cannot be read, or the file not written.
    """
    from crawler.exports.export import (
        export as write,  # the store and all it needs, which --help does not
    )

    start, stop = checked_range(*args.songs) if args.songs else (0, None)
    settings = store_settings_of(args)
    try:
        report = write(settings.store, args.out, start, stop)
    except OSError as error:
        raise CrawlerError(f"{args.out} cannot be written: {error}") from error
    if args.json:
        print(msgspec.json.encode(report).decode())
        return 0
    print(f"{args.out}: {count(report.records, 'record')}, {size(report.bytes)}.")
    for name, number in report.misfits.items():
        print(f"  {count(number, 'value')} did not fit the column {name} and are empty there")
    return 0
