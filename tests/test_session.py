"""The session that step 1 gets, used as anybody would use a `requests.Session`."""

import contextlib
import gzip
import inspect
import io
import socket
import threading
import time
import tracemalloc

import pytest
import requests
from requests.auth import HTTPDigestAuth

from crawler.wire.session import HeldBackError, WireSession
from crawler.wire.wire import Wire
from tests.faulty_site import closed_port, swallowing_port
from tests.records import expected_info

SECONDS = 1.5


@contextlib.contextmanager
def open_session(ca_file=None):
    """Open a session over a wire of its own, with 15 seconds to go."""
    wire = Wire(4, user_agent="tests/1", attempt_seconds=15, ca_file=ca_file)
    with wire, WireSession(wire) as made:
        yield made


@pytest.fixture
def session():
    """A session in the midst of an attempt of a second and a half."""
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
    """Two requests of 0.9 s in one attempt of 1.5 s: the second ends with the attempt."""
    with Scripted(right(b"one"), right(b"two"), pause_seconds=0.9) as site:
        assert session.get(site.url).content == b"one"
        with pytest.raises(requests.Timeout):
            session.get(site.url)
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
    with Scripted(right(b"late"), pause_seconds=1) as site, pytest.raises(requests.Timeout):
        session.get(site.url, timeout=timeout)


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


def test_F5c_what_threads_of_a_function_are_told_counts_too(session):
    """Two at once: of neither is the answer taken for a hop of the other's."""
    slow = Scripted(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", pause_seconds=0.4)
    with slow, Scripted(right(b"cover")) as quick:
        first = threading.Thread(target=session.get, args=(slow.url,))
        first.start()
        while not slow.asked:
            time.sleep(0.01)
        session.get(quick.url)
        first.join()
    assert [seen.status for seen in session.returned] == [500, 200]  # as they were asked


def test_F5c_what_a_thread_that_was_left_behind_is_told_counts_for_no_other_number(session):
    """A 404 that comes when the next number is asked says nothing about that one."""
    with Scripted(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n", pause_seconds=0.4) as site:
        left = threading.Thread(target=session.get, args=(site.url,))
        left.start()
        while not site.asked:
            time.sleep(0.01)
        session.end()
        session.begin(time.monotonic() + SECONDS, lambda: True)
        left.join()
    assert session.returned == []


def test_B7_a_page_that_redirects_to_itself_is_asked_once(session):
    """Unless it sets a cookie, which may change what it answers."""
    hop = b"HTTP/1.1 302 On\r\nLocation: /\r\nContent-Length: 0\r\n"
    with Scripted(hop + b"Set-Cookie: a=1\r\n\r\n", hop + b"\r\n") as site:
        with pytest.raises(requests.TooManyRedirects):
            session.get(site.url)
        assert (session.sent, [seen.status for seen in session.returned]) == (2, [302])
    with Scripted(hop + b"\r\n") as site:
        assert session.get(site.url, allow_redirects=False).status_code == 302


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


# --- What requests documents, as the site sees it ------------------------------------------------


def lines_of(asked):
    """Split a request into its lines, and its body."""
    head, _, body = asked.partition(b"\r\n\r\n")
    return head.split(b"\r\n"), body


@pytest.mark.parametrize("headers", [{}, {"X-A": "1"}, {"Accept": "a/b"}, {"X-Empty": ""}])
@pytest.mark.parametrize("data", [None, b"", b"x" * 2000])
def test_no_header_of_libcurls_own_is_sent(session, headers, data):
    """No Accept, no User-Agent beside ours, no Expect, no Content-Type that nobody gave."""
    session.headers = {}
    prepared = requests.Request("POST", "http://x/", headers=headers, data=data).prepare()
    with Scripted(right(b"ok")) as site:
        prepared.url = site.url
        session.send(prepared)
        lines, body = lines_of(site.asked[0])
    names = [line.partition(b":")[0].decode() for line in lines[1:]]
    assert sorted(names) == sorted(["Host", *prepared.headers])
    assert body == (data or b"")


def pieces():
    """Yield a body piece by piece."""
    yield b"one "
    yield b"two"


@pytest.mark.parametrize(
    ("options", "kind", "body"),
    [
        (
            {"data": {"a": "1", "b": ["2", "3"]}},
            "application/x-www-form-urlencoded",
            b"a=1&b=2&b=3",
        ),
        ({"data": b"raw"}, "", b"raw"),
        ({"data": "text \u00e4"}, "", "text \u00e4".encode()),
        ({"json": {"a": [1, None]}}, "application/json", b'{"a": [1, null]}'),
        ({"data": io.BytesIO(b"a file")}, "", b"a file"),
        ({"data": pieces()}, "", b"7\r\none two\r\n0\r\n\r\n"),
    ],
    ids=["form", "bytes", "text", "json", "file", "generator"],
)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
def test_a_body_of_any_kind_is_sent_as_requests_prepares_it(session, method, options, kind, body):
    """Forms, bytes, text, JSON and files with their length; a generator in chunks."""
    session.begin(time.monotonic() + 5, lambda: True)
    if isinstance(options.get("data"), io.BytesIO):
        options["data"].seek(0)
    if inspect.isgenerator(options.get("data")):
        options = {"data": pieces()}  # the one before has given all it had
    with Scripted(right(b"ok")) as site:
        session.request(method, site.url, **options)
        lines, sent = lines_of(site.asked[0])
    headers = dict(line.split(b": ", 1) for line in lines[1:])
    assert lines[0] == b"%s / HTTP/1.1" % method.encode()
    assert sent == body
    assert headers.get(b"Content-Type", b"") == kind.encode()
    if b"Transfer-Encoding" not in headers:
        assert int(headers[b"Content-Length"]) == len(body)


def test_files_are_sent_in_parts(session):
    """Multipart, with name, type and content, and a boundary that the header names."""
    with Scripted(right(b"ok")) as site:
        session.post(site.url, files={"cover": ("a.png", b"\x89PNG", "image/png")}, data={"n": "1"})
        lines, body = lines_of(site.asked[0])
    boundary = next(line for line in lines if b"boundary=" in line).partition(b"boundary=")[2]
    assert body.count(b"--" + boundary) == 3
    assert b'filename="a.png"\r\nContent-Type: image/png\r\n\r\n\x89PNG\r\n' in body


def test_an_upload_without_end_is_refused(session):
    """What a generator yields is read before it is sent, so it must be no more than 8 MiB."""

    def endless():
        while True:
            yield b"x" * 65_536

    with Scripted() as site, pytest.raises(ValueError, match="an upload may be 8388608 bytes"):
        session.post(site.url, data=endless())


def test_a_generator_runs_in_the_thread_of_its_function(session):
    """Somebody's code never holds up the wire's thread."""
    threads = []

    def upload():
        threads.append(threading.current_thread())
        yield b"x"

    with Scripted(right(b"ok")) as site:
        session.post(site.url, data=upload())
    assert threads == [threading.current_thread()]


def test_parameters_and_basic_auth_are_sent(session):
    """`params` in the query, `auth` or the address's own user in a header, and nowhere else."""
    with Scripted(right(b"1"), right(b"2")) as site:
        session.get(site.url, params={"q": "a b", "n": [1, 2]}, auth=("me", "secret"))
        session.get(site.url.replace("//", "//you:hidden@"))
        one, two = (lines_of(asked)[0] for asked in site.asked)
    assert one[0] == b"GET /?q=a+b&n=1&n=2 HTTP/1.1"
    assert b"Authorization: Basic bWU6c2VjcmV0" in one
    assert b"Authorization: Basic eW91OmhpZGRlbg==" in two


def test_digest_auth_answers_a_challenge_on_the_same_session(faulty_site, session):
    """It asks again beneath the session, by `response.connection.send`."""
    session.begin(time.monotonic() + 5, lambda: True)
    auth = HTTPDigestAuth("me", "secret")
    answer = session.get(f"{faulty_site.url('digest')}/songs/3", auth=auth)
    assert (answer.status_code, [each.status_code for each in answer.history]) == (200, [401])
    assert (session.sent, len(session.returned)) == (2, 1)
    again = answer.connection.send(answer.request)
    assert again.json() == answer.json()


def test_a_chain_of_redirects_is_followed_with_its_history(session):
    """307 sends the body again, 303 makes a GET of it; cookies of a hop go along."""
    hops = (
        b"HTTP/1.1 307 Again\r\nLocation: /b\r\nSet-Cookie: hop=1\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 303 See\r\nLocation: /c\r\nContent-Length: 0\r\n\r\n",
    )
    with Scripted(*hops, right(b"there")) as site:
        answer = session.post(site.url, data=b"body")
        asked = [lines_of(each) for each in site.asked]
    assert [lines[0] for lines, _ in asked] == [
        b"POST / HTTP/1.1", b"POST /b HTTP/1.1", b"GET /c HTTP/1.1"
    ]  # fmt: skip
    assert [body for _, body in asked] == [b"body", b"body", b""]
    assert b"Cookie: hop=1" in asked[1][0]
    assert [each.status_code for each in answer.history] == [307, 303]
    assert answer.content == b"there"


def test_hooks_see_each_response_and_may_replace_it(session):
    """Of the session and of the request; what the hook gives counts as what was returned."""
    heard = []

    def note(response, **_):
        heard.append((response.status_code, response.elapsed.total_seconds() > 0))

    def teapot(response, **_):
        made = requests.Response()
        made.status_code, made.request = 418, response.request
        return made

    with Scripted(right(b"1"), right(b"2")) as site:
        session.hooks["response"].append(note)
        assert session.get(site.url).text == "1"
        session.hooks["response"].clear()
        assert session.get(site.url, hooks={"response": [note, teapot]}).status_code == 418
    assert heard == [(200, True), (200, True)]
    assert session.returned[-1].status == 418


def test_headers_of_an_answer_are_read_as_requests_does(session):
    """Any case finds them, repeated ones are joined, a folded one is one line; the reason stays."""
    head = (
        b"HTTP/1.1 200 Alright then\r\nVary: a\r\nvary: b\r\nX-Note: one\r\n two\r\n"
        b"Content-Type: text/plain; charset=latin-1\r\nContent-Length: 1\r\n\r\n\xe4"
    )
    with Scripted(head, b"HTTP/1.1 204\r\n\r\n") as site:
        answer = session.get(site.url)
        assert answer.headers["VARY"] == "a, b"
        assert answer.headers["x-note"] == "one two"
        assert (answer.reason, answer.encoding, answer.text) == (
            "Alright then",
            "latin-1",
            "\u00e4",
        )
        assert answer.raw.version == 11
        bare = session.get(site.url)
        assert (bare.status_code, bare.reason, bare.content) == (204, "", b"")


def test_a_stream_is_read_in_lines_and_pieces(session):
    """`iter_lines`, `iter_content` and `raw` give the body, and closing it early does no harm."""
    session.begin(time.monotonic() + 5, lambda: True)
    with Scripted(*[right(b"one\ntwo\nthree")] * 4) as site:
        assert list(session.get(site.url, stream=True).iter_lines()) == [b"one", b"two", b"three"]
        pieces = list(session.get(site.url, stream=True).iter_content(5))
        assert pieces == [b"one\nt", b"wo\nth", b"ree"]
        with session.get(site.url, stream=True) as answer:
            assert answer.raw.read(3) == b"one"
        assert answer.raw.closed
        assert session.get(site.url, stream=True).raw.headers["content-length"] == "13"


# --- What is raised ------------------------------------------------------------------------------

CUT = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npage"
NOT_GZIP = right(b"page", b"Content-Encoding: gzip")
HUGE = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n"
TWO_LENGTHS = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nContent-Length: 8\r\n\r\npage"


@pytest.mark.parametrize(
    ("answer", "raised", "kind"),
    [
        (None, "ConnectionError", "connection"),
        (CUT, "ChunkedEncodingError", "connection"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "ChunkedEncodingError", "protocol"),
        (NOT_GZIP, "ContentDecodingError", "encoding"),
        (HUGE, "ContentDecodingError", "too_large"),
        (TWO_LENGTHS, "InvalidHeader", "protocol"),
        (b"nonsense\r\n\r\n", "ConnectionError", "protocol"),
    ],
    ids=["closed", "cut", "bad-chunk", "not-gzip", "huge", "two-lengths", "garbage"],
)  # fmt: skip
def test_each_kind_of_failure_is_raised_as_the_class_that_requests_has_for_it(answer, raised, kind):
    """And `except RequestException` catches each; the error knows its request."""
    wanted = getattr(requests.exceptions, raised)
    with OneShot(answer) as url, open_session() as session:
        with pytest.raises(requests.RequestException) as caught:
            session.get(url)
        assert caught.type is wanted
        assert caught.value.request.url == url
        assert session.returned[-1].error == kind


class OneShot:
    """A site that answers each connection with the same bytes, and ends it."""

    def __init__(self, answer):
        self._answer, self._listener = answer, socket.create_server(("127.0.0.1", 0))

    def __enter__(self):
        threading.Thread(target=self._serve, daemon=True).start()
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}/"

    def __exit__(self, *_):
        self._listener.close()

    def _serve(self):
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self._listener.accept()
                with peer:
                    peer.recv(65_536)
                    peer.sendall(self._answer or b"")


def test_what_never_leaves_is_raised_as_requests_does(session, faulty_site_tls):
    """No connection, no answer in time, a wrong certificate, too many hops, no address at all."""
    session.begin(time.monotonic() + 20, lambda: True)
    with closed_port() as port, pytest.raises(requests.exceptions.ConnectionError):
        session.get(f"http://127.0.0.1:{port}/")
    with swallowing_port() as port, pytest.raises(requests.exceptions.ConnectTimeout):
        session.get(f"http://127.0.0.1:{port}/", timeout=0.2)
    with Scripted(right(b"late"), pause_seconds=1) as site, pytest.raises(requests.ReadTimeout):
        session.get(site.url, timeout=0.2)
    with pytest.raises(requests.exceptions.SSLError):
        session.get(f"{faulty_site_tls.url('right')}/songs/3")
    with pytest.raises(requests.exceptions.ConnectionError):
        session.get(f"http://{'a' * 64}.example/")
    hop = b"HTTP/1.1 302 On\r\nLocation: /\r\nContent-Length: 0\r\n\r\n"
    session.max_redirects = 3
    with Scripted(*[hop] * 5) as site, pytest.raises(requests.TooManyRedirects):
        session.get(site.url)
    for url, wanted in (
        ("file:///etc/hostname", requests.exceptions.InvalidSchema),
        ("no-scheme", requests.exceptions.MissingSchema),
        ("http://", requests.exceptions.InvalidURL),
    ):
        with pytest.raises(wanted):
            session.get(url)
    with Scripted() as site, pytest.raises(requests.exceptions.InvalidHeader):
        session.get(site.url, headers={"X": "a\r\nY: b"})


@pytest.mark.parametrize("timeout", ["soon", (1, "2"), (1, 2, 3)])
def test_a_timeout_that_is_none_is_refused(session, timeout):
    """As requests does, with a ValueError."""
    with Scripted() as site, pytest.raises(ValueError, match="timeout"):
        session.get(site.url, timeout=timeout)


def test_a_site_that_sends_now_and_then_is_not_silent(session):
    """`timeout=` bounds the silence between two pieces, as requests documents it, not the whole."""
    session.begin(time.monotonic() + 10, lambda: True)
    slow = Trickling([b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n", b"pa", b"g", b"e"], 0.25)
    with slow as url:
        assert session.get(url, timeout=0.6).content == b"page"


class Trickling(OneShot):
    """A site that sends its answer in pieces, with pauses."""

    def __init__(self, pieces, pause_seconds):
        super().__init__(b"")
        self._pieces, self._pause_seconds = pieces, pause_seconds

    def _serve(self):
        with contextlib.suppress(OSError):
            peer, _ = self._listener.accept()
            with peer:
                peer.recv(65_536)
                for piece in self._pieces:
                    time.sleep(self._pause_seconds)
                    peer.sendall(piece)
                peer.recv(1)


def test_what_is_not_offered_is_refused_or_ignored_in_words(session, caplog):
    """A client certificate is refused; verify, proxies and a longer timeout are told of once."""
    with Scripted(*[right(b"x")] * 2) as site:
        with pytest.raises(ValueError, match="leave out cert="):
            session.get(site.url, cert="mine.pem")
        for _ in range(2):
            options = {"verify": False, "proxies": {"http": "http://127.0.0.1:1"}, "timeout": 60}
            assert session.get(site.url, **options).ok
    told = [record.message for record in caplog.records]
    assert [word.partition("=")[0].split()[-1] for word in told] == ["verify", "proxies", "timeout"]
