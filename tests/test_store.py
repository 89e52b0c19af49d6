"""Stores: one suite over folder and bucket, then what only one of them can do wrong."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from crawler.errors import (
    BlockFormatError,
    SettingsError,
    StoreConflictError,
    StoreUnavailableError,
)
from crawler.store.block import ABSENT, Token, block_name, decode_block, encode_block
from crawler.store.bucket import BucketStore
from crawler.store.contract import Content, Deadline, Store, save_block
from crawler.store.folder import FolderStore
from crawler.store.opening import open_store
from tests.records import NOON, failed, found, missing, mixed
from tests.storage_server import RoughWay

ROOT = Path(__file__).parent.parent
NAME = block_name(7000)


def save(store, records, first=7000, believed=ABSENT):
    """Save with the arguments that do not matter here."""
    return save_block(store, first, records, source="s", believed=believed, timeout=20)


def fill(store, firsts):
    """Put blocks of one record each."""
    for first in firsts:
        data, info = encode_block([found(first)], source="s")
        store.write(block_name(first), Content(data, info=info), expected=ABSENT, timeout=20)


def listed(store, *span):
    """List first numbers."""
    return [info.first for info in store.list_blocks(*span, timeout=20)]


def in_another_process(code, *args, check=True):
    """Run Python beside the test; returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *args],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0 or not check, done.stderr
    return done.stdout.strip()


# ---------------------------------------------------------------- objects and tokens


def test_nothing_is_read_as_none(store):
    """An object that is not there is no error."""
    assert store.read("store.json", timeout=20) is None


@pytest.mark.parametrize("data", [b"", b"x", bytes(range(256)) * 1000], ids=["0", "1", "many"])
def test_what_is_written_is_read(store, data):
    """An object comes back byte for byte, with the token that writing it returned."""
    token = store.write("runs/one.json", Content(data), expected=None, timeout=20)
    assert token != ABSENT
    assert store.read("runs/one.json", timeout=20) == (data, token)


def test_creating_what_is_there_is_a_conflict(store):
    """Where nothing is expected an object is made once, and who comes second changes nothing."""
    store.write(NAME, Content(b"first"), expected=ABSENT, timeout=20)
    with pytest.raises(StoreConflictError, match=NAME):
        store.write(NAME, Content(b"second"), expected=ABSENT, timeout=20)
    assert store.read(NAME, timeout=20).data == b"first"


def test_replacing_what_changed_is_a_conflict(store):
    """A write that names an older token changes nothing."""
    old = store.write("control.json", Content(b"old"), expected=ABSENT, timeout=20)
    new = store.write("control.json", Content(b"new"), expected=old, timeout=20)
    with pytest.raises(StoreConflictError):
        store.write("control.json", Content(b"late"), expected=old, timeout=20)
    assert store.read("control.json", timeout=20) == (b"new", new)


def test_replacing_what_is_gone_is_a_conflict(store):
    """A deleted object is not brought back by a write that expects it."""
    old = store.write("control.json", Content(b"old"), expected=ABSENT, timeout=20)
    store.delete("control.json", timeout=20)
    with pytest.raises(StoreConflictError):
        store.write("control.json", Content(b"late"), expected=old, timeout=20)
    assert store.read("control.json", timeout=20) is None


def test_without_a_token_the_last_one_wins(store):
    """A status object is replaced, whatever is there."""
    for text in (b"one", b"two"):
        store.write("status.json", Content(text), expected=None, timeout=20)
    assert store.read("status.json", timeout=20).data == b"two"


def test_deleting_nothing_is_no_error(store):
    """A deletion may be repeated."""
    store.write("runs/one.json", Content(b"1"), expected=ABSENT, timeout=20)
    for _ in range(2):
        store.delete("runs/one.json", timeout=20)
    assert store.list_names("runs/", timeout=20) == []


def test_names_are_listed_by_prefix(store):
    """Names come ascending, relative, and only those with the prefix."""
    names = ["runs/20261122T1-a.json", "runs/20261123T1-b.json", "store.json", "songs/note"]
    for name in reversed(names):
        store.write(name, Content(b"x"), expected=None, timeout=20)
    assert store.list_names("runs/", timeout=20) == names[:2]
    assert store.list_names("runs/20261123", timeout=20) == names[1:2]
    assert store.list_names("", timeout=20) == sorted(names)


# ---------------------------------------------------------------- listing blocks


def test_an_empty_store_has_no_blocks(store):
    """A store that nobody wrote to lists nothing."""
    assert listed(store) == []


def test_a_listing_tells_what_saving_told(store):
    """The listing has each block's counts and token, without reading a record."""
    records = mixed(range(7000, 8000)) | {7005: failed(7005, next_try_at=NOON)}
    info = save(store, records)
    assert list(store.list_blocks(timeout=20)) == [info]
    assert info.token == store.read(NAME, timeout=20).token


@pytest.mark.parametrize(
    ("span", "firsts"),
    [
        ((), [0, 1000, 5000]),
        ((0, 1), [0]),
        ((999, 1000), [0]),
        ((999, 1001), [0, 1000]),
        ((1000, 5000), [1000]),
        ((1001, 5001), [1000, 5000]),
        ((2000, 5000), []),
        ((5999, 10**12), [5000]),
        ((6000, None), []),
        ((7, 7), []),
        ((0, 0), []),
        ((5999,), [5000]),
    ],
    ids=str,
)
def test_a_listing_keeps_to_its_range(store, span, firsts):
    """Blocks that hold a number of the range are listed, ascending, and no others."""
    fill(store, [5000, 0, 1000])
    assert listed(store, *span) == firsts


def test_the_last_block_of_all_is_listed(store):
    """Its name sorts last, and there is none with 13 digits to end a listing with."""
    fill(store, [10**12 - 1000, 10**11, 5000])
    assert listed(store, 10**12 - 10, 10**12) == [10**12 - 1000]
    assert listed(store, 5999, 10**12) == [5000, 10**11, 10**12 - 1000]


def test_a_file_deleted_while_it_is_listed_is_passed_over(tmp_path):
    """A block that somebody removes in mid-listing is not there, and is no error."""
    store = FolderStore(tmp_path)
    fill(store, [0, 1000, 2000])
    blocks = store.list_blocks(timeout=20)
    seen = [next(blocks).first]
    store.delete(block_name(1000), timeout=20)
    assert seen + [info.first for info in blocks] == [0, 2000]


def test_E8_foreign_objects_are_left_alone(store):
    """E8: what is not named like a block is neither listed nor touched."""
    foreign = ["songs/readme.txt", "songs/000000000500.jsonl.gz", "songs/old/000000001000.jsonl.gz"]
    for name in foreign:
        store.write(name, Content(b"mine"), expected=ABSENT, timeout=20)
    fill(store, [1000])
    assert listed(store) == [1000]
    assert [store.read(name, timeout=20).data for name in foreign] == [b"mine"] * 3


@pytest.mark.parametrize("data", [b"", b"hello", encode_block([found(3)], source="s")[0]], ids=len)
def test_E5_a_block_without_counts_ends_the_listing_with_its_name(store, data):
    """E5: an object named like a block whose counts cannot be read is never passed over."""
    fill(store, [0, 2000])
    store.write(block_name(1000), Content(data), expected=ABSENT, timeout=20)
    with pytest.raises(BlockFormatError, match=block_name(1000)):
        listed(store)
    assert listed(store, 2000) == [2000]


def test_E5_a_block_under_another_one_s_name_ends_the_listing_with_what_to_do(store):
    """E5: its counts are true, but not of the numbers that its name promises."""
    fill(store, [0])
    data, info = encode_block([found(0)], source="s")
    store.write(block_name(1000), Content(data, info=info), expected=ABSENT, timeout=20)
    with pytest.raises(BlockFormatError, match=f"{block_name(1000)}.*another block.*Restore"):
        listed(store)


def test_both_stores_hold_the_same_bytes(tmp_path, bucket_url):
    """A folder's blocks can be copied to a bucket: the bytes are the same."""
    stores = [FolderStore(tmp_path), open_store(bucket_url)]
    for store in stores:
        save(store, mixed(range(7000, 7500)))
    assert len({store.read(NAME, timeout=20).data for store in stores}) == 1


# ---------------------------------------------------------------- saving blocks


def test_saving_merges_with_what_is_there(store):
    """Whatever the hint said about the block, both halves are there in the end."""
    save(store, mixed(range(7000, 7400)))
    for believed in (ABSENT, None, Token("99")):
        save(store, mixed(range(7300, 7500)), believed=believed)
    info = save(store, {7000: failed(7000)})
    assert decode_block(store.read(NAME, timeout=20).data, NAME) == mixed(range(7000, 7500))
    assert (info.settled, info.failed) == (500, 0)


def test_saving_where_nothing_is_though_the_hint_said_so(store):
    """A hint that names a block which is gone does no harm."""
    assert save(store, mixed(range(7000, 7003)), believed=Token("99")).settled == 3


def test_saving_the_same_again_writes_nothing(store):
    """A second delivery of a block leaves the object as it is."""
    first = save(store, mixed(range(7000, 7400)))
    again = save(store, mixed(range(7000, 7400)))
    assert again == first


def test_saving_over_a_broken_block_is_refused(store):
    """E5: what cannot be read is not overwritten; the error names it."""
    store.write(NAME, Content(b"broken"), expected=ABSENT, timeout=20)
    with pytest.raises(BlockFormatError, match=NAME):
        save(store, mixed(range(7000, 7400)))
    assert store.read(NAME, timeout=20).data == b"broken"


WRITER = """
import sys
from concurrent.futures import ThreadPoolExecutor
from crawler.store.opening import open_store
from crawler.store.contract import save_block
from tests.test_store import states_of_writer

store = open_store(sys.argv[1])
sys.stdin.readline()
def write(number):
    for records in states_of_writer(number):
        save_block(store, 7000, records, source="s", timeout=60)
with ThreadPoolExecutor(4) as pool:
    list(pool.map(write, range(int(sys.argv[2]), int(sys.argv[2]) + 4)))
"""


def states_of_writer(number):
    """Give the states that writer 0 to 15 saves: its share of the block, and all of it badly."""
    share = {n: found(n, f"by {n % 16}") for n in range(7000 + number, 8000, 16)}
    yield {n: failed(n, at=NOON + timedelta(hours=number)) for n in range(7000, 8000)}
    yield share
    yield {n: missing(n, at=NOON - timedelta(hours=number)) for n in range(7000, 8000)}


def test_E4_sixteen_writers_of_one_block(store):
    """E4: four processes with four threads each write one block: each number once, the best."""
    writers = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", WRITER, store.location, str(number)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
        )
        for number in range(0, 16, 4)
    ]
    for writer in writers:
        writer.stdin.write(b"go\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate(timeout=100)
    assert [writer.returncode for writer in writers] == [0] * 4
    records = decode_block(store.read(NAME, timeout=20).data, NAME)
    assert records == {n: found(n, f"by {n % 16}") for n in range(7000, 8000)}


def test_one_of_many_creators_wins(store):
    """Of sixteen threads that create one object, one does, and its bytes are there."""

    def create(number):
        try:
            return store.write("store.json", Content(b"%d" % number), expected=ABSENT, timeout=30)
        except StoreConflictError:
            return None

    with ThreadPoolExecutor(16) as pool:
        tokens = list(pool.map(create, range(16)))
    winner = next(number for number, token in enumerate(tokens) if token)
    assert tokens.count(None) == 15
    assert store.read("store.json", timeout=20) == (b"%d" % winner, tokens[winner])


def test_compare_and_swap_loses_no_increment(store):
    """Threads that count up by compare-and-swap lose no step."""

    def count_up(_):
        while True:
            stored = store.read("control.json", timeout=20)
            number, token = (int(stored.data), stored.token) if stored else (0, ABSENT)
            try:
                store.write(
                    "control.json", Content(b"%d" % (number + 1)), expected=token, timeout=20
                )
            except StoreConflictError:
                continue
            return

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(count_up, range(40)))
    assert store.read("control.json", timeout=20).data == b"40"


def test_E7_all_of_more_than_a_thousand_objects_are_seen(tmp_path, bucket_url, monkeypatch):
    """E7: a listing of many pages has every block once, ascending, and every name."""
    location = bucket_url.removeprefix("gs://").split("/", 1)
    stores: list[Store] = [FolderStore(tmp_path), BucketStore(*location, page_size=100)]
    firsts = range(0, 1_050_000, 1000)
    data = {first: encode_block([found(first)], source="s") for first in firsts}

    for store in stores:

        def put(first, store=store):
            packed, info = data[first]
            store.write(block_name(first), Content(packed, info=info), expected=ABSENT, timeout=60)

        monkeypatch.setattr(os, "fsync", lambda _: None)  # 1050 synced files are not the point
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(put, firsts))
        assert listed(store) == list(firsts)
        assert listed(store, 100_500, 300_500) == list(range(100_000, 301_000, 1000))
        assert len(store.list_names("songs/", timeout=60)) == len(firsts)


# ---------------------------------------------------------------- before the first request


def test_E1_a_check_of_a_good_store_leaves_no_trace(store):
    """E1: a store that works is found to, and holds nothing afterwards."""
    for _ in range(2):
        store.check(timeout=20)
    assert store.list_names("", timeout=20) == []


def test_E1_no_bucket(bucket_url):
    """E1: a bucket that is not there is told before the run begins, with what to do."""
    with pytest.raises(StoreUnavailableError, match=r"make the bucket no-such-bucket"):
        open_store("gs://no-such-bucket/x").check(timeout=20)


@pytest.fixture
def rough_way(storage_server, bucket_url, monkeypatch):
    """A bucket on the way to which things go wrong."""
    with RoughWay(storage_server) as way:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", way.url)
        way.store = open_store(bucket_url)
        yield way


@pytest.mark.parametrize("passed", range(5), ids=["list", "create", "replace", "read", "delete"])
def test_E1_no_permission(rough_way, passed):
    """E1: a right that lacks, to whatever a run needs, is told with the role."""
    rough_way.faults = [None] * passed + [403]
    with pytest.raises(StoreUnavailableError, match=r"roles/storage\.objectUser"):
        rough_way.store.check(timeout=20)
    assert len(rough_way.requests) == passed + 1


def test_E1_refused_credentials(rough_way):
    """E1: a 401 asks for a login."""
    rough_way.fault_for_ever = 401
    with pytest.raises(StoreUnavailableError, match="gcloud auth application-default login"):
        rough_way.store.check(timeout=20)


def test_E1_no_credentials(monkeypatch, tmp_path):
    """E1: without credentials nothing is sent, and the error says how to get some."""
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    with pytest.raises(StoreUnavailableError, match="gcloud auth application-default login"):
        open_store("gs://some-bucket").check(timeout=20)


UNPRIVILEGED = """
import os, sys
from crawler.store.block import encode_block
from crawler.errors import StoreUnavailableError
from crawler.store.folder import FolderStore
from crawler.store.contract import save_block
import filelock
from tests.records import found
if os.getuid() == 0:
    os.setuid(65534)
store = FolderStore(sys.argv[1])
for action in (lambda: store.check(5),
               lambda: save_block(store, 0, {1: found(1)}, source="s", timeout=5)):
    try:
        action()
    except StoreUnavailableError as error:
        print("make the folder writable" in str(error))
print([info.found for info in store.list_blocks(timeout=5)])
"""


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX permissions")
@pytest.mark.parametrize("is_made_anew", [False, True], ids=["gone", "another"])
def test_E6_a_folder_that_is_gone_in_mid_run_is_not_made_anew(tmp_path, is_made_anew):
    """What was stored is not there any more, so nothing may look as if it were."""
    store = FolderStore(tmp_path / "store")
    fill(store, [0])
    (tmp_path / "store").rename(tmp_path / "elsewhere")
    if is_made_anew:
        (tmp_path / "store").mkdir()
    with pytest.raises(StoreUnavailableError, match="deleted, moved or unmounted"):
        fill(store, [1000])
    assert not (tmp_path / "store" / "songs").exists()
    (tmp_path / "elsewhere").rename(tmp_path / "store")
    fill(store, [1000])
    assert listed(store) == [0, 1000]


def test_E6_names_that_cannot_be_listed_are_not_taken_for_none(tmp_path):
    """A folder that is no folder, or refuses us, holds we do not know what: no empty list."""
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(StoreUnavailableError, match="Not a directory"):
        FolderStore(tmp_path).list_names("runs/", timeout=5)


def test_E6_a_read_only_folder(tmp_path):
    """E6: a folder that may not be written is told before the run begins; it can still be read."""
    folder = Path("/tmp") / f"read-only-{os.getpid()}-{tmp_path.name}"  # others may enter /tmp
    try:
        fill(FolderStore(folder), [7000])
        for path in (folder, folder / "songs"):
            path.chmod(0o555)
        assert in_another_process(UNPRIVILEGED, str(folder)) == "True\nTrue\n[1]"
    finally:
        for path in (folder, folder / "songs"):
            path.chmod(0o755)
        shutil.rmtree(folder)


def test_E6_a_file_in_the_place_of_the_folder(tmp_path):
    """E6: a store below something that is no folder is told before the run begins."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreUnavailableError, match="name another folder"):
        FolderStore(tmp_path / "file" / "store").check(timeout=5)


FULL_DISK = """
import resource, sys
from crawler.errors import StoreUnavailableError
from crawler.store.folder import FolderStore
from crawler.store.contract import Content, save_block
from tests.records import mixed
store = FolderStore(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    save_block(store, 7000, mixed(range(7000, 8000)), source="s", timeout=5)
except StoreUnavailableError as error:
    print("make room" in str(error))
"""


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX limits")
def test_E6_a_full_disk(tmp_path):
    """E6: a write that finds no room is told, the block before stays whole, nothing is left over."""
    store = FolderStore(tmp_path)
    before = save(store, mixed(range(7000, 7010)))
    assert in_another_process(FULL_DISK, str(tmp_path)) == "True"
    assert list(store.list_blocks(timeout=5)) == [before]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", ".mark", "songs"]


KILLED = """
import os, signal, sys
from crawler.store.contract import Content
from crawler.store.folder import FolderStore
os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
FolderStore(sys.argv[1]).write("songs/x", Content(b"half"), expected=None, timeout=5)
"""


KILLED_IN_CHECK = """
import os, signal, sys
from pathlib import Path
from crawler.store.folder import FolderStore
Path.read_bytes = lambda _: os.kill(os.getpid(), signal.SIGKILL)
FolderStore(sys.argv[1]).check(5)
"""


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_F1_the_leftover_of_a_killed_check_is_swept(tmp_path):
    """F1: a process killed while it tries the folder leaves a file that the next check removes."""
    in_another_process(KILLED_IN_CHECK, str(tmp_path), check=False)
    assert len(list((tmp_path / "songs").iterdir())) == 1
    FolderStore(tmp_path).check(timeout=5)
    assert list((tmp_path / "songs").iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_F1_the_leftover_of_a_kill_is_swept(tmp_path):
    """F1: a writer killed in mid-write leaves no object, holds no lock, and is cleaned up after."""
    store = FolderStore(tmp_path)
    in_another_process(KILLED, str(tmp_path), check=False)
    assert (tmp_path / ".partial").exists()
    assert store.list_names("", timeout=5) == []
    store.check(timeout=5)
    assert not (tmp_path / ".partial").exists()


# ---------------------------------------------------------------- time, and a rough way


HOLDER = """
import sys
from filelock import FileLock
with FileLock(sys.argv[1] + "/.lock"):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_waiting_for_another_process_ends_in_time(tmp_path):
    """A lock that somebody holds for ever costs the caller's timeout, and no more."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        holder.stdout.readline()
        with pytest.raises(StoreUnavailableError, match=r"another writer .* more than 0\.2 s"):
            FolderStore(tmp_path).write("x", Content(b""), expected=None, timeout=0.2)
        holder.stdin.close()
    assert FolderStore(tmp_path).write("x", Content(b""), expected=None, timeout=5)


def test_waiting_for_another_thread_ends_in_time(tmp_path, monkeypatch):
    """A thread that is stuck in a write costs the others their timeout, and no more."""
    store, stuck, go_on = FolderStore(tmp_path), threading.Event(), threading.Event()

    def hang(_):
        stuck.set()
        go_on.wait(30)

    monkeypatch.setattr(os, "fsync", hang)
    thread = threading.Thread(
        target=store.write, args=("x", Content(b"")), kwargs={"expected": None, "timeout": 5}
    )
    thread.start()
    stuck.wait(10)
    with pytest.raises(StoreUnavailableError, match="another writer"):
        store.write("y", Content(b""), expected=None, timeout=0.1)
    go_on.set()
    thread.join()


def test_a_deadline_is_shared_by_all_steps():
    """What one step uses up is missing to the next; with nothing left the error says what for."""
    now = [100.0]
    deadline = Deadline(5, clock=lambda: now[0])
    now[0] = 103.0
    assert deadline.left("reading x") == 2.0
    now[0] = 105.0
    with pytest.raises(
        StoreUnavailableError, match="reading x took longer than 5 s: try again later"
    ):
        deadline.left("reading x")


@pytest.mark.parametrize("faults", [[503, 503], [429], ["lose"], [500, "lose", 502]], ids=str)
def test_E2_one_object_with_the_right_bytes(rough_way, faults):
    """E2: 503 twice, 429 on one name, an answer lost after the object was stored: one object."""
    rough_way.faults = list(faults)
    token = rough_way.store.write(NAME, Content(b"right"), expected=ABSENT, timeout=30)
    assert rough_way.store.read(NAME, timeout=20) == (b"right", token)
    assert rough_way.store.list_names("", timeout=20) == [NAME]


def test_E2_a_lost_answer_with_somebody_elses_bytes_is_a_conflict(rough_way):
    """E2: after a lost answer, what another one wrote is not taken for our own."""
    rough_way.store.write(NAME, Content(b"theirs"), expected=ABSENT, timeout=30)
    rough_way.faults = ["lose"]
    with pytest.raises(StoreConflictError):
        rough_way.store.write(NAME, Content(b"ours"), expected=ABSENT, timeout=30)


def test_E2_a_block_whose_answer_was_lost_is_saved_once(rough_way):
    """E2: saving a block through a rough way gives its counts and its token."""
    rough_way.faults = ["lose", 503]
    info = save(rough_way.store, mixed(range(7000, 7100)))
    assert list(rough_way.store.list_blocks(timeout=20)) == [info]


@pytest.mark.parametrize("fault", [503, "hang", "lose"])
@pytest.mark.parametrize(
    "action",
    [
        lambda store: store.check(timeout=1.0),
        lambda store: store.read(NAME, timeout=1.0),
        lambda store: store.write(NAME, Content(b""), expected=ABSENT, timeout=1.0),
        lambda store: list(store.list_blocks(timeout=1.0)),
        lambda store: store.list_names("", timeout=1.0),
        lambda store: store.delete(NAME, timeout=1.0),
    ],
    ids=["check", "read", "write", "list_blocks", "list_names", "delete"],
)
def test_E3_a_deadline_bounds_every_call(rough_way, action, fault):
    """E3: a bucket that fails or says nothing for ever costs the timeout, retries included."""
    rough_way.fault_for_ever = fault
    start = time.monotonic()
    with pytest.raises(StoreUnavailableError):
        action(rough_way.store)
    assert time.monotonic() - start < 4  # on a busy machine; the client's own would be 120


def test_a_lost_connection_is_explained(monkeypatch):
    """A server that is not there is an error with what to do, in the caller's time."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:1")
    with pytest.raises(StoreUnavailableError, match="try again later"):
        open_store("gs://some-bucket").read(NAME, timeout=0.5)


def test_a_block_copied_from_a_folder_is_listed(bucket_url):
    """A block without metadata, as a copy makes it, is asked for its first bytes."""
    store = open_store(bucket_url)
    data, info = encode_block(mixed(range(7000, 8000)).values(), source="s")
    info.token = store.write(NAME, Content(data), expected=ABSENT, timeout=20)
    assert list(store.list_blocks(timeout=20)) == [info]


def test_a_listing_of_a_bucket_reads_no_block(rough_way):
    """The counts come with the listing: one request for two blocks."""
    fill(rough_way.store, [0, 1000])
    rough_way.requests.clear()
    assert listed(rough_way.store) == [0, 1000]
    assert len(rough_way.requests) == 1


def test_a_new_block_is_created_without_reading(rough_way):
    """With the hint that nothing is there a block costs one request."""
    save(rough_way.store, mixed(range(7000, 7010)))
    assert Counter(line.split()[0] for line in rough_way.requests) == {"POST": 1}


def test_a_client_that_is_handed_in_is_used(storage_server, bucket_url):
    """A caller with credentials of its own brings its own client."""
    from google.cloud import storage

    bucket, prefix = bucket_url.removeprefix("gs://").split("/", 1)
    store = BucketStore(bucket, prefix, storage.Client(project=None))
    store.write("x", Content(b"1"), expected=ABSENT, timeout=20)
    assert open_store(bucket_url).read("x", timeout=20).data == b"1"


def test_a_folder_is_named_in_json(tmp_path):
    """A store's location opens the same store again."""
    store = open_store(str(tmp_path / "größe 1"))
    save(store, mixed(range(7000, 7010)))
    assert listed(open_store(json.loads(json.dumps(store.location)))) == [7000]


# ---------------------------------------------------------------- locations


@pytest.mark.parametrize(
    ("location", "opened"),
    [
        ("gs://bucket", "gs://bucket"),
        ("gs://bucket/", "gs://bucket"),
        ("gs://my-bucket.example.com/a/b/", "gs://my-bucket.example.com/a/b"),
        ("gs://bucket/größe 1", "gs://bucket/größe 1"),
        ("data/genius", str(Path("data/genius"))),
        (".", "."),
    ],
)
def test_a_location_is_opened_without_a_request(location, opened):
    """Opening names the store; nothing is sent and no folder is made."""
    assert open_store(location).location == opened


def test_a_home_folder_is_found():
    """A tilde is the user's home, also where no shell has replaced it."""
    assert open_store("~/songs").location == str(Path.home() / "songs")


@pytest.mark.parametrize(
    "location",
    [
        "",
        " ",
        "gs:",
        "gs:bucket",
        "gs://",
        "gs:///x",
        "gs://B",
        "gs://ab",
        "gs://bucket//x",
        "gs://bucket/../x",
        "gs://bucket/a\nb",
        "gs://bucket/a*",
        "gs://bucket/" + "a" * 600,
        "s3://bucket",
        "https://storage.googleapis.com/bucket",
        "a\0b",
        "~nobody-of-this-name/x",
    ],
    ids=ascii,
)
def test_a_malformed_location_is_refused(location):
    """What is neither a bucket nor a folder is a wrong setting, with both forms in the message."""
    with pytest.raises(SettingsError, match="gs://bucket/prefix or a folder") as raised:
        open_store(location)
    assert (raised.value.code, raised.value.field) == ("store_malformed", "CRAWLER_STORE")
