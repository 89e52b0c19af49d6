"""The session that step 1 gets, used as anybody would use a `requests.Session`."""

import contextlib
import gzip
import socket
import threading
import time
import tracemalloc

import pytest
import requests

from crawler.demo.songs import expected_info
from crawler.wire.session import HeldBackError, WireSession
from crawler.wire.wire import Wire
from tests.faulty_site import closed_port

SECONDS = 0.5


@contextlib.contextmanager
def open_session(ca_file=None):
    """Open a session over a wire of its own, with 15 seconds to go."""
    wire = Wire(4, user_agent="tests/1", attempt_seconds=15, ca_file=ca_file)
    with wire, WireSession(wire) as made:
        yield made


@pytest.fixture
def session():
    """A session in the midst of an attempt of half a second."""
    with open_session() as made:
        made.begin(time.monotonic() + SECONDS, lambda: True)
        yield made


class Scripted:
    """A site that answers each request with the next bytes it was given, on any connection."""

    def __init__(self, *answers, pause_seconds=0.0):
        self.asked, self._answers, self._pause = [], list(answers), pause_seconds
        self._open = [socket.create_server(("127.0.0.1", 0))]
        self.url = f"http://127.0.0.1:{self._open[0].getsockname()[1]}/"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for one in self._open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        for one in self._open:
            one.close()

    @property
    def connections(self):
        """Connections taken up so far."""
        return len(self._open) - 1

    def _serve(self):
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self._open[0].accept()
                self._open.append(peer)
                with contextlib.suppress(ConnectionError):
                    self._answer(peer)

    def _answer(self, peer):
        while asked := peer.recv(65_536):
            self.asked.append(asked)
            time.sleep(self._pause)
            peer.sendall(self._answers.pop(0))


def right(body, *headers):
    """Write an answer in good form."""
    lines = [b"HTTP/1.1 200 OK", b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join([*lines, b"", body])


def test_a_session_serves_what_requests_users_expect(demo_site, session):
    """JSON, text, raw pieces, headers and elapsed time are as with any session."""
    headers = {"Authorization": f"Bearer {demo_site.token}"}
    with session.get(f"{demo_site.base_url}/songs/3", headers=headers, stream=True) as answer:
        answer.raise_for_status()
        assert answer.json()["response"]["song"]["title"] == expected_info(3)["title"]
        assert b"".join(answer.iter_content(100)) == answer.content
        assert answer.headers["Content-Type"].startswith("application/json")
        assert answer.elapsed.total_seconds() < SECONDS
    assert session.returned[-1].status == 200
    assert session.returned[-1].is_page


def test_a_compressed_answer_is_unpacked(session):
    """What was asked for as gzip is given as it was meant."""
    packed = right(gzip.compress(b"page"), b"Content-Encoding: gzip")
    with Scripted(packed) as site:
        assert session.get(site.url).content == b"page"


@pytest.mark.parametrize("encoding", [b"", b"Content-Encoding: gzip"])
def test_raw_gives_the_body_to_those_who_read_it_themselves(session, encoding):
    """With `stream=True`, in one read, in pieces, or to be decoded: the page, not nothing."""
    packed = right(gzip.compress(b"a page") if encoding else b"a page", encoding or b"X: y")
    with Scripted(*[packed.replace(b"\r\n\r\n", b"\r\nSet-Cookie: a=b\r\n\r\n", 1)] * 4) as site:
        with session.get(site.url, stream=True) as answer:
            assert answer.raw.read() == b"a page"
        assert session.get(site.url, stream=True).raw.read(decode_content=True) == b"a page"
        assert list(session.get(site.url, stream=True).raw.stream(4)) == [b"a pa", b"ge"]
        answer = session.get(site.url, stream=True)
        assert (answer.content, answer.raw.read(2), answer.raw.status) == (b"a page", b"a ", 200)
        assert (session.cookies["a"], site.connections) == ("b", 1)


def test_an_adapter_of_ones_own_is_refused_in_words(session):
    """It would neither keep the deadline nor be counted, and what it saw nobody would know."""
    with pytest.raises(ValueError, match=r"leave out session\.mount"):
        session.mount("https://", requests.adapters.HTTPAdapter(max_retries=3))


def test_a_body_in_tiny_chunks_costs_no_more_than_one_in_large_ones(session):
    """Two bytes a chunk: what is kept are the bytes, not an object for each chunk."""
    size = 64 * 1024
    session.begin(time.monotonic() + 20, lambda: True)
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    with Scripted(right(b"first"), head + b"2\r\nab\r\n" * (size // 2) + b"0\r\n\r\n") as site:
        session.get(site.url)
        tracemalloc.start()
        try:
            assert session.get(site.url).content == b"ab" * (size // 2)
            assert tracemalloc.get_traced_memory()[1] < 6 * size
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_an_answer_without_a_body_may_announce_one(session, method):
    """A HEAD tells the length and encoding of a page that it does not bring; 304 as well."""
    status = b"200 OK" if method == "HEAD" else b"304 Not Modified"
    head = b"HTTP/1.1 %s\r\nContent-Length: 9999999\r\nContent-Encoding: gzip\r\n\r\n" % status
    with Scripted(head) as site:
        assert session.request(method, site.url).content == b""
    assert session.returned[-1].error is None


def test_each_step_gets_only_what_is_left(session):
    """Two requests of 0.3 s in one attempt of 0.5 s: the second ends with the attempt."""
    began = time.monotonic()
    with Scripted(right(b"one"), right(b"two"), pause_seconds=0.3) as site:
        assert session.get(site.url).content == b"one"
        with pytest.raises(requests.Timeout):
            session.get(site.url)
        assert time.monotonic() - began < SECONDS + 0.4
    assert session.returned[-1].error == "timeout"


def test_after_the_deadline_nothing_is_sent(demo_site, session):
    """A function that comes back too late has no attempt any more."""
    session.begin(time.monotonic() - 1, lambda: True)
    with pytest.raises(requests.Timeout):
        session.get(f"{demo_site.base_url}/songs/1")
    assert session.returned[-1].error == "timeout"
    assert session.sent == 0
    assert demo_site.stats()["requests"] == 0


@pytest.mark.parametrize("timeout", [0.1, (5, 0.1)])
def test_a_function_may_ask_for_less_time(session, timeout):
    """`timeout=` is heeded as requests does: for each read."""
    session.begin(time.monotonic() + 10, lambda: True)
    began = time.monotonic()
    with Scripted(right(b"late"), pause_seconds=1) as site:
        with pytest.raises(requests.Timeout):
            session.get(site.url, timeout=timeout)
        assert time.monotonic() - began < 0.8


def test_D1_a_request_is_held_back_once_its_connection_stands(session):
    """The leave to send is asked last, when the connection stands, and nothing is sent without."""
    asked = []

    def may_send():
        asked.append("may I?")
        return False

    session.begin(time.monotonic() + 5, may_send)
    with Scripted(right(b"page")) as site:
        with pytest.raises(HeldBackError):
            session.get(site.url)
        assert site.asked == []
        assert asked == ["may I?"]
    assert session.was_held_back
    assert session.returned == []


def test_F5c_of_each_address_the_last_answer_counts(session):
    """A function may try again by itself: what it got in the end is what the site said."""
    with Scripted(
        b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n",
        right(b"cover"),
    ) as site:
        session.get(site.url)
        session.get(site.url)
        session.get(f"{site.url}/cover")
    assert [seen.status for seen in session.returned] == [404, 200]
    assert session.sent == 3


def test_B5_what_comes_beyond_an_answer_ends_its_connection(session):
    """A second answer to one request is not the answer to the next."""
    with Scripted(right(b"one") + right(b"not asked for"), right(b"two")) as site:
        assert session.get(site.url).content == b"one"
        assert session.get(site.url).content == b"two"
        assert site.connections == 2


@pytest.mark.parametrize(
    "written", [b"Retry-After:\r\n\t2", b"Retry-After: 2 \t", b"RETRY-AFTER:2"]
)
def test_D2_a_header_means_the_same_however_it_is_laid_out(session, written):
    """Over two lines, with blanks behind it, in capitals: the site asks for 2 s, no more, no less."""
    with Scripted(b"HTTP/1.1 429 Slow\r\nContent-Length: 0\r\n%s\r\n\r\n" % written) as site:
        assert session.get(site.url).headers["Retry-After"] == "2"
    assert session.returned[-1].headers["retry-after"] == "2"


@pytest.mark.parametrize("coding", [b"chunked", b"identity"])
def test_B5_two_lengths_are_refused_without_a_line_in_the_log(session, caplog, coding):
    """One line for each such page, as urllib3 writes it, would fill the log of a long run."""
    both = right(b"1\r\nx\r\n0\r\n\r\n", b"Transfer-Encoding: " + coding)
    with Scripted(both) as site, pytest.raises(requests.RequestException, match="both"):
        session.get(site.url)
    assert session.returned[-1].error == "protocol"
    assert caplog.records == []


def test_B6_endless_informational_answers_are_bounded(session):
    """A flood of 100 Continue is no head."""
    flood = Scripted(b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000)
    with flood as site, pytest.raises(requests.ConnectionError):
        session.get(site.url)
    assert session.returned[-1].error == "protocol"


@pytest.mark.parametrize("status", [b"102 Processing", b"103 Early Hints", b"199"])
def test_B4_an_interim_answer_is_not_the_answer(session, status):
    """Whatever 1xx comes first, and however often, the final answer is taken, on its connection."""
    interim = b"HTTP/1.1 %s\r\nLink: </a>\r\nContent-Length: 3\r\n\r\n" % status
    gone = b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n"
    with Scripted(interim * 3 + right(b"one"), interim + gone, right(b"two")) as site:
        assert session.get(site.url).content == b"one"
        assert session.get(site.url).status_code == 404
        assert session.get(site.url).content == b"two"
        assert site.connections == 1


def test_B6_a_change_of_protocols_that_nobody_asked_for_is_none(session):
    """101 is no interim answer: what follows it would not be HTTP."""
    switch = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"
    with Scripted(switch + right(b"one"), right(b"two")) as site:
        with pytest.raises(requests.ConnectionError):
            session.get(site.url)
        assert session.returned[-1].error == "protocol"
        session.begin(time.monotonic() + SECONDS, lambda: True)
        assert session.get(site.url).content == b"two"
        assert site.connections == 2


def chunked(body, coding=b"chunked"):
    """Write a head that announces chunks, and what comes after it."""
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: %s\r\n\r\n%s" % (coding, body)


@pytest.mark.parametrize(
    "body",
    [
        b"4\r\npage\r\n0\r\n\r\n",
        b"004;name=value\r\npage\r\n000\r\n\r\n",
        b"1\r\np\r\n3 \r\nage\r\n0\r\nContent-Length: 7\r\n\r\n",
    ],
)
def test_B5_a_body_in_chunks_is_put_together(session, body):
    """With names and trailers, which mean nothing here; its connection serves on."""
    twice = chunked(body, b"chunked\r\nTransfer-Encoding: Chunked")
    with Scripted(chunked(body), twice, right(b"next")) as site:
        assert session.get(site.url).content == b"page"
        assert session.get(site.url).content == b"page"
        assert session.get(site.url).content == b"next"
        assert site.connections == 1


@pytest.mark.parametrize(
    "size", [b"0x4", b"0_4", b"-4", b"+4", b"", b" 4", b"zz", b"F" * 17, b"2", b"3"]
)
def test_B5_a_chunk_of_a_wrong_size_is_no_page(session, size):
    """A size is hexadecimal digits, and the chunk as long; the next request is not hurt."""
    broken = chunked(size + b"\r\npage\r\n0\r\n\r\n")
    with Scripted(broken, right(b"next")) as site:
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            session.get(site.url)
        assert session.returned[-1].error == "protocol"
        session.begin(time.monotonic() + SECONDS, lambda: True)
        assert session.get(site.url).content == b"next"
        assert site.connections == 2


def test_B5_a_transfer_encoding_that_nobody_knows_is_no_page(session):
    """Nor is a known one of which http.client sees no chunks."""
    for coding in (b"xchunked", b"gzip, chunked", b"chunked, chunked", b""):
        session.begin(time.monotonic() + SECONDS, lambda: True)
        with Scripted(chunked(b"4\r\npage\r\n0\r\n\r\n", coding)) as site:
            with pytest.raises(requests.RequestException):
                session.get(site.url)
            assert session.returned[-1].error == "protocol"


def test_neither_proxy_nor_netrc_nor_verify_false_changes_anything(
    faulty_site_tls, tmp_path, monkeypatch
):
    """The environment is not asked, and TLS is verified though a function says otherwise."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password hush-hush\n")
    monkeypatch.setenv("NETRC", str(netrc))
    with closed_port() as port:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        with open_session(str(faulty_site_tls.ca_path)) as session:
            url = faulty_site_tls.url("right")
            assert session.get(f"{url}/songs/3", verify=False).status_code == 200
            session.begin(time.monotonic() + 5, lambda: True)
            with pytest.raises(requests.exceptions.SSLError):
                session.get(f"{faulty_site_tls.url('expired')}/songs/3", verify=False)
    assert session.returned[-1].error == "tls"
    assert "authorization" not in faulty_site_tls.requests[0].headers


def test_cookies_are_kept_and_never_folded_into_one(session):
    """Two of one answer, with commas in their dates, are two; they go out with the next request."""
    cookies = (
        b"Set-Cookie: seen=yes; expires=Wed, 21 Oct 2099 07:28:00 GMT",
        b"Set-Cookie: other=1; Path=/",
    )
    with Scripted(right(b"x", *cookies), right(b"x")) as site:
        answer = session.get(site.url)
        assert answer.cookies.get_dict() == {"seen": "yes", "other": "1"}
        session.get(site.url)
        assert b"Cookie: other=1; seen=yes" in site.asked[1] or (
            b"Cookie: seen=yes; other=1" in site.asked[1]
        )


def test_redirects_are_followed_for_functions_without_their_token(faulty_site, session):
    """Requests' default, and its care: no `Authorization` for another host."""
    url = faulty_site.url("redirect-other-302")
    answer = session.get(f"{url}/songs/3", headers={"Authorization": "Bearer mine"})
    assert answer.status_code == 200
    assert [seen.listener for seen in faulty_site.requests] == ["main", "other"]
    assert "authorization" not in faulty_site.requests[1].headers
    assert session.sent == 2


def test_closing_a_session_closes_its_connections(demo_site):
    """Also where somebody still holds an answer."""
    with open_session() as session:
        kept = session.get(f"{demo_site.base_url}/songs/3")
        assert demo_site.stats()["open_connections"] == 1
    deadline = time.monotonic() + 5
    while demo_site.stats()["open_connections"] and time.monotonic() < deadline:
        time.sleep(0.01)
    assert demo_site.stats()["open_connections"] == 0
    assert kept.status_code == 401
