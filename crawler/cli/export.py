"""The commands that make something else of a store: `export`, `schema` and `rebuild`."""

import argparse
import os

import msgspec

from crawler.answer import noun_of
from crawler.cli.options import (
    Commands,
    add_command,
    add_range,
    checked_range,
    command,
    count,
    print_json,
    reading_options,
    setting_options,
    settings_of,
    size,
    store_options,
)
from crawler.errors import CrawlerError
from crawler.request.crawl_request import songs
from crawler.settings.reading import repeat_options

_DESCRIPTION = """\
Write all records of a store to one file, whose extension says in which format, or to a folder.

  .parquet   typed, compressed; for pandas, DuckDB, BigQuery   pip install pandas pyarrow
  .csv       texts quoted, so that an empty one is not absent  the same
  .jsonl     one JSON object a line                            nothing more to install
  FOLDER/    Parquet in parts of a hundred blocks; run again,  as .parquet
             only those whose blocks changed are written

The columns are the fields that the source declares; where nothing is declared, their types are found
in the data. Memory stays flat, and a file is there whole or not at all. Start a spreadsheet's import
with every text as text: titles may begin with "="."""

_EXAMPLES = """\
examples:
  %(prog)s songs.parquet
  %(prog)s songs/                    again each night: what is new
  %(prog)s songs.csv --songs 1 100001
  %(prog)s songs.jsonl --store gs://my-bucket/genius"""


_SCHEMA = """\
Print how a tool reads the blocks of a store in place, without an export.

  --duckdb     a statement whose result is that of to_pandas
  --bigquery   a schema for bq mk --external_table_definition, or for bq load

Types are those that the source declares; where nothing is declared, they are found in the data."""

_SCHEMA_EXAMPLES = """\
examples:
  %(prog)s --duckdb --store data/genius | duckdb
  %(prog)s --bigquery --store gs://my-bucket/genius > schema.json"""

_REBUILD = """\
Make new info of what a crawl with CRAWLER_KEEP_RAW=1 kept, without a request to the site.

For when CRAWLER_FIELDS, or a source of your own, has changed: a store never mixes two kinds of
info, so the rebuilt records go into another store, with the raw bodies. The old one is only read.
START is included, STOP is not."""

_REBUILD_EXAMPLES = """\
examples:
  CRAWLER_FIELDS=title,stats.pageviews %(prog)s 1 2001
  %(prog)s 1 2001 --store data/genius --into data/genius-2

exit codes:
  0 all of it, 3 some songs could not be rebuilt: a crawl into the new store asks for them"""


def add_commands(commands: Commands) -> None:
    """Add these commands to the command line."""
    summary, options = "write the store to a .parquet, .csv or .jsonl file", reading_options()
    parser = add_command(commands, "export", export, summary, _DESCRIPTION, _EXAMPLES, *options)
    out = "the file, replaced if it is there; or a folder, with / at its end"
    parser.add_argument("out", metavar="OUT", help=out)
    some = "only these (default: all)"
    parser.add_argument("--songs", nargs=2, metavar=("START", "STOP"), help=some)
    summary, options = "print how DuckDB or BigQuery reads the blocks in place", reading_options()
    parser = add_command(commands, "schema", schema, summary, _SCHEMA, _SCHEMA_EXAMPLES, *options)
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--duckdb", action="store_true", help="a statement")
    group.add_argument("--bigquery", action="store_true", help="a schema, as JSON")
    summary = "make new info from kept bodies, without a request"
    options = [store_options(), setting_options("whose bodies", "source", "function")]
    parser = add_command(
        commands, "rebuild", rebuild, summary, _REBUILD, _REBUILD_EXAMPLES, *options
    )
    add_range(parser)
    into = "the new store (default: the old one's name and -rebuilt)"
    parser.add_argument("--into", metavar="WHERE", help=into)


def export(args: argparse.Namespace) -> int:
    """Export a store as the command says; returns 0."""
    from crawler.exports.export import export as write  # and the store, which --help does not need

    start, stop = checked_range(*args.songs) if args.songs else (0, None)
    settings = settings_of(args, for_site=False)
    try:
        report = write(settings.store, args.out, start, stop)
    except OSError as error:
        # pyarrow's own words name the unfinished file
        why = os.strerror(error.errno) if error.errno else error
        raise CrawlerError(f"{args.out} cannot be written: {why}") from error
    if args.json:
        print_json(report)
        return 0
    print(f"{args.out}: {count(report.records, 'record')}, {size(report.bytes)}.")
    for name, number in report.misfits.items():
        print(f"  {count(number, 'value')} did not fit the column {name} and are empty there")
    return 0


def schema(args: argparse.Namespace) -> int:
    """Print the schema of a store; returns 0."""
    from crawler.exports.formats import store_columns
    from crawler.source.fields import bigquery_schema, duckdb_statement
    from crawler.store.opening import open_store

    store = open_store(settings_of(args, for_site=False).store)
    columns = store_columns(store)
    if args.duckdb:
        print(duckdb_statement(store.location, columns), end="")
    else:
        print(msgspec.json.format(msgspec.json.encode(bigquery_schema(columns))).decode())
    return 0


def rebuild(args: argparse.Namespace) -> int:
    """Rebuild a range as the command says; returns 0 or 3."""
    from crawler.exports.export import rebuild as make_anew
    from crawler.run.functions import target_of
    from crawler.store.opening import open_store, store_beside

    start, stop = checked_range(args.start, args.stop)
    settings = settings_of(args, for_site=False)
    into = args.into or store_beside(settings.store, "rebuilt")
    source = target_of(settings)
    report = make_anew(open_store(settings.store), open_store(into), source, start, stop)
    left, noun = report.without_raw + report.refused, noun_of(source.name)
    if args.json:
        print_json(report)
        return 3 if left else 0
    print(
        f"{into}: {count(report.rebuilt, noun)} rebuilt, "
        f"{count(report.copied, 'missing or failed record')} copied, of {songs(start, stop, noun)}."
    )
    if left:
        print(f"{report.without_raw:,} had no body, {report.refused:,} were refused:")
        for num, why in report.first_troubles.items():
            print(f"  {noun} {num}: {why}")
        options = repeat_options(settings) or []
        go_on = command(["crawl", str(start), str(stop), *options, "--store", into])
        print(f"To ask the site for these alone: {go_on}")
    return 3 if left else 0
