"""The page on the store: every name and field in it is the code's, and none is left out."""

import re
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from crawler.fleet import orders
from crawler.page.status_page import write_status
from crawler.record import Record
from crawler.run.raw import raw_name
from crawler.store import control, folder, opening
from crawler.store.block import FORMAT_VERSION, HEAD_BYTES, BlockInfo, block_name, encode_block
from crawler.store.bucket import CHECK_FOLDER, METADATA_KEY
from tests.records import expected_info, failed

PAGE = (Path(__file__).parent.parent / "docs" / "store.md").read_text(encoding="utf-8")
TREE = {line.split()[0] for line in PAGE.split("```")[1].strip().splitlines()}


def table_after(heading):
    """Name the fields in the table below a heading."""
    section = re.split(r"^#+ ", PAGE.partition(heading + "\n")[2], maxsplit=1, flags=re.MULTILINE)[
        0
    ]
    return re.findall(r"^\| `(\w+)`", section, flags=re.MULTILINE)


def test_the_tree_has_the_names_of_the_code():
    """Objects are called in the code as the tree calls them."""
    began = datetime(2026, 11, 22, 6, 12, 20, tzinfo=UTC)
    assert {
        opening.IDENTITY_FILE,
        block_name(378000),
        raw_name(378195),
        control.NAME,
        orders.order_name(orders.order_number(datetime(2026, 11, 22, 12, tzinfo=UTC))),
        control.run_name(began, "3f9c2a7d"),
        "status.json",
        "status.html",
        folder.LOCK_FILE,
        folder.PARTIAL_FILE,
        folder.MARK_FILE,
    } == TREE


def test_a_run_writes_nothing_else(tmp_path):
    """What a store is asked to hold is in the tree, files of its own included."""
    store = folder.FolderStore(tmp_path)
    store.check(timeout=5)
    listing = {0: encode_block([failed(7)], source="s")[1]}
    write_status(store, listing, now=datetime.now(UTC), known_runs={})
    top = {name.split("/")[0] for name in TREE}
    assert {path.name for path in tmp_path.iterdir()} <= top


@pytest.mark.parametrize(
    ("heading", "kind"),
    [
        ("### Fields of a record", Record),
        ("### What a listing tells of a block", BlockInfo),
        ("## `store.json`", opening.Identity),
        ("## `control.json`", control.Control),
    ],
    ids=["record", "block", "identity", "control"],
)
def test_the_tables_have_the_fields_of_the_code(heading, kind):
    """Every field is explained, in the order in which it is written, and none that there is not."""
    assert table_after(heading) == list(kind.__struct_fields__)


def test_the_example_is_a_record():
    """The line shown is read as a record."""
    example = re.search(r"^\{.*\}$", PAGE, flags=re.MULTILINE)
    record = msgspec.json.decode(example[0], type=Record)
    assert (record.outcome, record.info) == ("found", expected_info(record.song_num))


def test_the_numbers_are_those_of_the_code():
    """Sizes, versions and how long things are kept are the code's."""
    for words in (
        f"the latest {control.KEPT_RUNS} ",
        f"the first {HEAD_BYTES} bytes",
        f"format version of the block, {FORMAT_VERSION} ",
        f"below `{CHECK_FOLDER}`",
        f"under the key `{METADATA_KEY}`",
    ):
        assert words in PAGE
