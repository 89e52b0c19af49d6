"""The embedded song site, asked over real sockets."""

import http.client
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
import unicodedata
import zlib
from urllib.parse import urlsplit

import pytest

from crawler.demo.behaviour import (
    FAULT_KINDS,
    MAX_FAULTS_IN_A_ROW,
    Counts,
    SiteBehaviour,
    busiest_second,
)
from crawler.demo.site import DemoSite
from crawler.demo.songs import song, song_body
from tests.records import expected_info

TOKEN = {"Authorization": "Bearer demo-token"}
SONGS = [n for n in range(1, 200) if song(n) is not None]
MISSING = [n for n in range(1, 200) if song(n) is None]


def ask(site, path, headers=TOKEN, method="GET"):
    """One request on a connection of its own; returns status, headers, body."""
    connection = http.client.HTTPConnection(urlsplit(site.base_url).netloc, timeout=10)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def ask_on(connection, song_num):
    """One request on an open connection; returns its status."""
    connection.request("GET", f"/songs/{song_num}", headers=TOKEN)
    answer = connection.getresponse()
    answer.read()
    return answer.status


def connect(site):
    """A raw socket to the site."""
    where = urlsplit(site.base_url)
    return socket.create_connection((where.hostname, where.port), timeout=10)


def raw_request(path, *lines):
    """The bytes of one request."""
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: site", *lines, "", ""]).encode()


def read_all(client):
    """Everything up to the end of the connection."""
    parts = []
    while part := client.recv(65536):
        parts.append(part)
    return b"".join(parts)


def test_a_song_comes_as_the_api_sends_it(demo_site):
    """A number with a song answers 200 with `meta.status` and the song object."""
    status, headers, body = ask(demo_site, f"/songs/{SONGS[0]}")
    answer = json.loads(body)
    assert status == 200
    assert headers["Content-Type"] == "application/json; charset=utf-8"
    assert answer == {"meta": {"status": 200}, "response": {"song": song(SONGS[0])}}


def test_expected_info_is_what_the_page_says(demo_site):
    """What a record is checked against agrees with the page, field by field."""
    for song_num in SONGS[:50]:
        made = json.loads(ask(demo_site, f"/songs/{song_num}")[2])["response"]["song"]
        assert expected_info(song_num) == {
            "title": made["title"],
            "url": made["url"],
            "artist": made["primary_artist"]["name"],
            "artist_id": made["primary_artist"]["id"],
            "album": made["album"]["name"] if made.get("album") else None,
            "release_date": made["release_date"],
            "pageviews": made["stats"].get("pageviews"),
        }


def test_a_missing_number_is_404_in_json(demo_site):
    """A number without a song answers 404 with `meta`, and nothing is expected of it."""
    status, _, body = ask(demo_site, f"/songs/{MISSING[0]}")
    assert status == 404
    assert json.loads(body)["meta"]["status"] == 404
    assert expected_info(MISSING[0]) is None


@pytest.mark.parametrize("path", ["/", "/songs/", "/songs/x", "/songs/-1", "/songs/%31", "/a/1"])
def test_other_addresses_are_not_found(demo_site, path):
    """An address that is no song's answers 404."""
    assert ask(demo_site, path)[0] == 404


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        pytest.param({}, "meta", id="none"),
        pytest.param({"Authorization": "Bearer wrong"}, "error", id="wrong"),
        pytest.param({"Authorization": "demo-token"}, "error", id="no-scheme"),
    ],
)
def test_the_token_is_required(demo_site, headers, key):
    """Without the right token the answer is 401, in one of the API's two shapes."""
    status, _, body = ask(demo_site, f"/songs/{SONGS[0]}", headers=headers)
    assert status == 401
    assert key in json.loads(body)


def test_another_method_is_405(demo_site):
    """Nothing but GET is allowed."""
    assert ask(demo_site, "/songs/1", method="DELETE")[0] == 405


def test_above_the_last_song_all_is_missing():
    """Numbers above `last_song` have no song, the last itself may."""
    last = SONGS[20]
    with DemoSite(last_song=last) as site:
        assert ask(site, f"/songs/{last}")[0] == 200
        assert ask(site, f"/songs/{last + 1}")[0] == 404
        assert ask(site, f"/songs/{10**12}")[0] == 404


def test_nine_in_a_hundred_are_missing():
    """Of any long run of numbers about 9 in 100 have no song."""
    for first in (0, 10_000, 2_000_000):
        missing = sum(song(n) is None for n in range(first, first + 2000))
        assert 140 <= missing <= 220


def test_songs_are_the_same_every_time():
    """A number's song depends on the number only, in whatever process it is made."""
    code = "from crawler.demo.songs import song_body; print(hash_(song_body(1)))".replace(
        "hash_", "__import__('zlib').crc32"
    )
    environment = os.environ | {"PYTHONHASHSEED": "7"}
    printed = subprocess.check_output([sys.executable, "-c", code], env=environment, text=True)
    assert int(printed) == zlib.crc32(song_body(1) or b"")


def test_bodies_are_about_three_kilobytes():
    """Bodies are as long as the real site's, so that throughput means something."""
    sizes = [len(body) for n in range(2000) if (body := song_body(n))]
    assert 2500 < statistics.mean(sizes) < 3500


def test_titles_come_in_many_scripts_and_odd_shapes():
    """Two thousand titles hold many scripts, right-to-left ones, and what breaks careless code."""
    titles = [made["title"] for n in range(1, 4001) if (made := song(n))]
    together = "".join(titles)
    scripts = {unicodedata.name(char, "?").split(" ")[0] for char in together if char.isalpha()}
    assert {"LATIN", "GREEK", "CYRILLIC", "ARABIC", "HEBREW", "THAI", "HANGUL", "CJK"} <= scripts
    for odd in ("\n", '"', "'", "=cmd", "<script>", "🎵", "\t", "\u2028", "\u202e"):
        assert odd in together, odd
    assert "" in titles


def test_fields_are_null_or_absent_now_and_then():
    """Album, release date and page views are null or absent on some songs, there on most."""
    songs = [made for n in range(1, 3001) if (made := song(n))]
    assert {"album" in made for made in songs} == {True, False}
    assert any("album" in made and made["album"] is None for made in songs)
    assert any(made["release_date"] is None for made in songs)
    assert any("pageviews" not in made["stats"] for made in songs)
    assert any(made["stats"].get("pageviews", 0) is None for made in songs)
    whole = [made for made in songs if made.get("album") and made["release_date"]]
    assert len(whole) > len(songs) / 2


def test_a_connection_is_kept(demo_site):
    """Many requests go over one connection, and are counted."""
    connection = http.client.HTTPConnection(urlsplit(demo_site.base_url).netloc, timeout=10)
    statuses = [ask_on(connection, n) for n in range(1, 51)]
    connection.close()
    counts = demo_site.stats()
    assert (counts["requests"], counts["connections"]) == (50, 1)
    assert counts["answers"]["200"] == statuses.count(200)
    assert counts["numbers_asked"] == 50
    assert counts["numbers_asked_again"] == 0
    assert len(counts["arrivals"]) == 50
    assert counts["arrivals"] == sorted(counts["arrivals"])


@pytest.mark.parametrize("latency_seconds", [0.0, 0.001])
def test_pipelined_requests_are_answered_in_order(latency_seconds):
    """Requests sent without waiting, cut anywhere, are each answered once, in their order."""
    numbers = SONGS[:40]
    lines = ["Authorization: Bearer demo-token"]
    sent = b"".join(raw_request(f"/songs/{n}", *lines) for n in numbers[:-1])
    sent += raw_request(f"/songs/{numbers[-1]}", *lines, "Connection: close")
    with DemoSite(latency_seconds=latency_seconds) as site, connect(site) as client:
        for start in range(0, len(sent), 37):
            client.sendall(sent[start : start + 37])
        received = read_all(client)
        assert site.stats()["max_in_flight"] == 1
    paths = re.findall(rb'"api_path":"/songs/(\d+)"', received)
    assert [int(path) for path in paths] == numbers


def send_for_ever(client, data):
    """Send up to the client's patience."""
    for _ in range(20_000):
        client.sendall(data)


def test_a_client_that_reads_nothing_is_not_answered_without_end(demo_site):
    """Answers wait for a client that does not read; the others are served meanwhile."""
    with connect(demo_site) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(0.3)
        request = raw_request(f"/songs/{SONGS[0]}", "Authorization: Bearer demo-token")
        with pytest.raises(TimeoutError):
            send_for_ever(client, request * 20)
        assert ask(demo_site, f"/songs/{SONGS[0]}")[0] == 200
        assert demo_site.stats()["requests"] < 20_000


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        pytest.param(b"garbage\r\n\r\n", b"400", id="garbage"),
        pytest.param(b"GET /songs/1 HTTP/1.1\r\nno colon\r\n\r\n", b"400", id="header"),
        pytest.param(b"GET /songs/1 HTTP/1.1\r\nContent-Length: 5\r\n\r\n", b"400", id="body"),
        pytest.param(b"GET /" + b"x" * 70_000, b"431", id="endless"),
    ],
)
def test_what_is_no_request_is_refused(demo_site, sent, status):
    """What cannot be read as a request is answered with an error, and the connection ends."""
    with connect(demo_site) as client:
        client.sendall(sent)
        assert read_all(client).startswith(b"HTTP/1.1 " + status)


def test_http_1_0_ends_the_connection(demo_site):
    """HTTP/1.0 without keep-alive gets one answer."""
    with connect(demo_site) as client:
        client.sendall(b"GET /songs/1 HTTP/1.0\r\n\r\n" * 2)
        assert read_all(client).count(b"HTTP/1.1 401") == 1


def test_latency_is_waited_by_all_at_once():
    """A slow site answers many connections at the same time."""
    with DemoSite(latency_seconds=0.3) as site:
        threads = [threading.Thread(target=ask, args=(site, f"/songs/{n}")) for n in range(1, 21)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        counts = site.stats()
    assert counts["max_in_flight"] == 20
    assert counts["max_open_connections"] == 20
    assert counts["in_flight"] == 0


def test_a_client_that_hangs_up_is_counted():
    """A client that does not wait for its answer is no longer in flight."""
    with DemoSite(latency_seconds=0.2) as site:
        with connect(site) as client:
            client.sendall(raw_request("/songs/1"))
            wait_until(lambda: site.stats()["in_flight"] == 1)
        ask(site, f"/songs/{SONGS[0]}")  # answered later than the other would have been
        counts = site.stats()
    assert counts["in_flight"] == 0
    assert counts["answers"] == {"hung_up": 1, "200": 1}


def wait_until(is_so):
    """Look again and again for at most 10 s."""
    end = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_above_the_rate_limit_it_says_how_long_to_wait():
    """A second's worth is served at once, the rest gets 429 with `Retry-After`."""
    with DemoSite(rate_limit=5, retry_after_seconds=7) as site:
        connection = http.client.HTTPConnection(urlsplit(site.base_url).netloc, timeout=10)
        statuses = [ask_on(connection, SONGS[0]) for _ in range(20)]
        connection.close()
        status, headers, body = ask(site, "/songs/1")
        counts = site.stats()
    assert statuses[:5] == [200] * 5
    assert 429 in statuses[5:]
    assert (status, headers["Retry-After"], json.loads(body)["meta"]["status"]) == (429, "7", 429)
    assert counts["while_told_to_wait"] >= 10


def test_faults_end_and_repeat_exactly():
    """With every request faulty each number still succeeds after three, in the same way each time."""
    outcomes = []
    for _ in range(2):
        with DemoSite(fault_share=1.0) as site:
            outcomes.append([[fate(site, n) for _ in range(5)] for n in SONGS[:12]])
    assert outcomes[0] == outcomes[1]
    for fates in outcomes[0]:
        assert set(fates[:MAX_FAULTS_IN_A_ROW]) <= {500, "reset", "cut"}
        assert fates[MAX_FAULTS_IN_A_ROW:] == [200, 200]
    assert {fate for fates in outcomes[0] for fate in fates} == {500, "reset", "cut", 200}


def fate(site, song_num):
    """How one request ends: a status, `reset` or `cut`."""
    try:
        return ask(site, f"/songs/{song_num}")[0]
    except ConnectionResetError:
        return "reset"
    except http.client.IncompleteRead:
        return "cut"


@pytest.mark.parametrize("kind", FAULT_KINDS)
def test_the_kind_of_fault_can_be_chosen(kind):
    """Of the kinds of faults those come that were asked for, and are counted by name."""
    with DemoSite(fault_share=1.0, fault_kinds=(kind,)) as site:
        fate(site, SONGS[0])
        assert site.stats()["answers"] == {kind: 1}


def test_a_share_of_faults_is_kept():
    """At a share of 0.2 about a fifth of the first attempts are faulty."""
    with DemoSite(fault_share=0.2, fault_kinds=("500",)) as site:
        connection = http.client.HTTPConnection(urlsplit(site.base_url).netloc, timeout=10)
        statuses = [ask_on(connection, n) for n in range(1, 1001)]
        connection.close()
    assert 150 < statuses.count(500) < 250


@pytest.mark.parametrize("status", [503, 404, 500])
def test_an_outage_hits_everything_in_its_window(status):
    """Inside the outage every answer has its status; 503 says how long to wait."""
    with DemoSite(outage=(0.0, 3600.0, status)) as site:
        answers = [ask(site, f"/songs/{n}") for n in SONGS[:5]]
    assert {answer[0] for answer in answers} == {status}
    assert all(("Retry-After" in answer[1]) == (status == 503) for answer in answers)


def test_outside_the_outage_all_is_well():
    """Before its start an outage changes nothing."""
    with DemoSite(outage=(3600.0, 1.0, 503)) as site:
        assert ask(site, f"/songs/{SONGS[0]}")[0] == 200


def test_gzip_is_for_those_who_accept_it():
    """Compressed answers hold the same page, and go to nobody who did not ask."""
    with DemoSite(gzip=True) as site:
        _, headers, body = ask(site, f"/songs/{SONGS[0]}", TOKEN | {"Accept-Encoding": "gzip"})
        plain = ask(site, f"/songs/{SONGS[0]}")
    assert headers["Content-Encoding"] == "gzip"
    assert zlib.decompress(body, wbits=31) == song_body(SONGS[0]) == plain[2]
    assert "Content-Encoding" not in plain[1]


def test_counts_can_be_asked_over_http(demo_site):
    """`/_stats` tells the counts without being counted, arrivals only where wanted."""
    ask(demo_site, "/songs/1")
    ask(demo_site, "/songs/1")
    ask(demo_site, "/songs/2")
    counts = json.loads(ask(demo_site, "/_stats", headers={})[2])
    longer = json.loads(ask(demo_site, "/_stats?arrivals=1", headers={})[2])
    assert (counts["requests"], counts["numbers_asked"], counts["numbers_asked_again"]) == (3, 2, 1)
    assert "arrivals" not in counts
    assert len(longer["arrivals"]) == 3
    assert [demo_site.times_asked(n) for n in (1, 2, 3)] == [2, 1, 0]


def test_close_frees_the_port_and_keeps_the_counts():
    """After `close`, also twice, the port refuses, the counts stay, no thread is left."""
    before = threading.active_count()
    with DemoSite() as site:
        client = connect(site)
        client.sendall(raw_request("/songs/1"))
        client.recv(100)
    site.close()
    assert site.stats()["requests"] == 1
    assert threading.active_count() == before
    client.close()
    with pytest.raises(ConnectionRefusedError):
        connect(site)


def test_a_taken_port_is_an_error(demo_site):
    """A port in use is told at once."""
    with pytest.raises(OSError, match="in use"):
        DemoSite(port=urlsplit(demo_site.base_url).port)


def test_the_busiest_second_is_found_wherever_it_begins():
    """Half of one calendar second and half of the next count together; the end is excluded."""
    assert busiest_second([]) == 0
    assert busiest_second([0.6, 0.7, 1.2, 1.5, 1.59]) == 5
    assert busiest_second([0.0, 1.0, 2.0]) == 1


def test_counts_of_a_number_stay_small():
    """A number asked very often stays at 255 instead of failing."""
    counts = Counts()
    for _ in range(300):
        counts.asked(10**12)
    assert counts.times_asked(10**12) == 255
    assert (counts.numbers_asked, counts.numbers_asked_again) == (1, 1)


def start(*options):
    """The site as a command of its own; returns the process and its first line."""
    command = [sys.executable, "-m", "crawler", "demo-site", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_says_where_it_is_and_ends_on_a_signal(number):
    """The first line has address and token; SIGTERM and Ctrl-C end it with exit code 0."""
    process, line = start("--token", "t0", "--last-song", "5")
    try:
        base_url = line.split(" ")[0]
        assert "t0" in line
        where = http.client.HTTPConnection(urlsplit(base_url).netloc, timeout=10)
        where.request("GET", "/songs/6", headers={"Authorization": "Bearer t0"})
        assert where.getresponse().status == 404
        where.close()
        process.send_signal(number)
        rest = process.communicate(timeout=10)
    finally:
        process.kill()
    assert (process.returncode, rest) == (0, ("", ""))


def test_the_command_names_a_port_it_cannot_have(demo_site):
    """A taken port is one line on stderr and exit code 1."""
    process, line = start("--port", str(urlsplit(demo_site.base_url).port))
    _, error = process.communicate(timeout=10)
    assert (process.returncode, line) == (1, "")
    assert error.startswith("--port ")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "options",
    [
        ["--faults", "1.5"],
        ["--faults", "x"],
        ["--rate-limit", "0"],
        ["--latency", "-1"],
        ["--fault-kinds", "500,nonsense"],
        ["--outage", "5"],
        ["--outage", "1:2:99"],
        ["--outage", "1:2:3:4"],
        ["--retry-after", "-1"],
        ["--port", "70000"],
    ],
    ids=" ".join,
)
def test_wrong_options_are_refused(options):
    """An option out of its bounds is wrong usage, and nothing starts."""
    process, line = start(*options)
    _, error = process.communicate(timeout=10)
    assert (process.returncode, line) == (2, "")
    assert options[0] in error


def test_a_taken_port_is_told_with_the_way_out(demo_site):
    """The command ends with one line, which says that 0 takes a free port."""
    port = str(urlsplit(demo_site.base_url).port)
    process, line = start("--port", port)
    _, error = process.communicate(timeout=10)
    assert (process.returncode, line) == (1, "")
    in_use = "Address already in use; --port 0 takes a free one"
    assert error == f"--port {port} cannot be used: {in_use}\n"


def test_the_behaviour_has_the_command_lines_defaults():
    """Without options the site is quick, right and unlimited."""
    assert SiteBehaviour() == SiteBehaviour(
        latency_seconds=0.0, rate_limit=None, fault_share=0.0, gzip=False
    )
