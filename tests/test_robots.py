"""robots.txt over real sockets: what RFC 9309 says of each answer."""

import pytest

from crawler import crawl
from crawler.errors import StoppedError
from crawler.frontier.work import IterableSupply
from crawler.source.declared import DeclaredSource, open_source
from crawler.source.source import user_agent
from crawler.store.block import block_name, decode_block
from crawler.store.opening import open_store
from crawler.wire.robots import MAX_BYTES, AllowedSupply, Robots, asks_robots, read_robots
from tests.crawls import TOKEN
from tests.faulty_site import FaultySite, Page, closed_port

RULES = b"User-agent: *\nDisallow: /songs/13\nCrawl-delay: 0.5\n"


class Pages:
    """A source of web pages, with a header of its own."""

    name, schema, robots = "pages", "1", True

    def __init__(self, base_url):
        self._base_url = base_url

    def url(self, song_num):
        """Address of a page."""
        return f"{self._base_url}/songs/{song_num}"

    def headers(self):
        """A secret."""
        return {"Authorization": f"Bearer {TOKEN}"}

    def info(self, song_num, body):
        """Nothing."""
        return {}


def read(site, **options):
    """Ask the site's robots.txt."""
    source = Pages(site.url("right"))
    ca_file = str(site.ca_path) if site.base_url.startswith("https") else None
    return read_robots(source, user_agent("me@example.org"), ca_file=ca_file, **options)


def allows(robots, path="/songs/13"):
    """Whether a path is allowed."""
    return robots.allows(f"http://any.example{path}")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 418])
def test_D9_a_4xx_allows_everything(faulty_site, status):
    """There are no rules, so there is nothing to heed."""
    faulty_site.robots = Page(status, RULES)
    robots = read(faulty_site)
    assert allows(robots)
    assert robots.crawl_delay == 0


@pytest.mark.parametrize("status", [500, 502, 503, 599])
def test_D9_a_5xx_stops_the_run(faulty_site, status):
    """A host in trouble is left alone, and the error says so."""
    faulty_site.robots = Page(status, RULES)
    with pytest.raises(StoppedError, match=f"robots.txt of 127.0.0.1 .*http_{status}") as caught:
        read(faulty_site)
    assert caught.value.stopped_by == "circuit"
    assert len(faulty_site.requests) == 1


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("hang-before-headers", "timeout"),
        ("body-trickle", "timeout"),
        ("reset-before-headers", "connection"),
        ("garbage", "protocol"),
    ],
)
def test_D9_an_unreachable_one_stops_the_run(faulty_site, fault, kind):
    """Silence, a reset, garbage: nobody knows the rules, so nothing is asked for."""
    faulty_site.robots = fault
    with pytest.raises(StoppedError, match=kind):
        read(faulty_site, seconds=0.4)


def test_D9_a_host_that_refuses_stops_the_run():
    """So does nobody listening at all."""
    with closed_port() as port, pytest.raises(StoppedError, match="connect"):
        read_robots(Pages(f"http://127.0.0.1:{port}"), "tests/1")


def test_D9_a_certificate_that_is_not_valid_stops_the_run(faulty_site_tls):
    """Rules from a host that cannot show who it is are no rules."""
    source = Pages(faulty_site_tls.url("expired"))
    with pytest.raises(StoppedError, match="tls"):
        read_robots(source, "tests/1", ca_file=str(faulty_site_tls.ca_path))


@pytest.mark.parametrize(
    ("rules", "is_allowed"),
    [
        (b"User-agent: *\nDisallow: /songs/13\n", False),
        (b"User-agent: *\nDisallow: /songs/14\n", True),
        (b"User-agent: *\nDisallow: /\nAllow: /songs/\n", True),
        (b"User-agent: other\nDisallow: /\n", True),
        (b"User-agent: *\nAllow: /\nUser-agent: song-crawler\nDisallow: /songs\n", False),
        (b"User-agent: *\nDisallow: /\n\nUser-agent: Song-Crawler\nAllow: /\n", True),
        (b"User-agent: *\nDisallow: /*3$\n", False),
        (b"user-agent:*\r\nDISALLOW:/songs/13\r\n", False),
        (b"\xef\xbb\xbfUser-agent: *\nDisallow: /songs/13\n", False),
        (b"\xff\xfe\xfd\nUser-agent: *\nDisallow: /songs/13\n", False),
        (b"<html>Hello</html>", True),
        (b"", True),
    ],
)
def test_D9_rules_are_read_as_they_are_meant(faulty_site, rules, is_allowed):
    """Groups, wildcards, the longest match, a BOM, bytes that are no UTF-8."""
    faulty_site.robots = Page(200, rules)
    assert allows(read(faulty_site)) is is_allowed


def test_D9_of_a_long_one_the_first_500_kib_are_read(faulty_site):
    """What lies beyond is not heeded, and the line that is cut neither."""
    rules = b"User-agent: *\nDisallow: /early\n"
    cut = b"Disallow: /songs/14\n"  # the limit lies before its 4
    filler = b"#" * (MAX_BYTES - len(rules) - len(cut) + 1) + b"\n"
    body = rules + filler + cut + b"Disallow: /late\n" + b"# more\n" * 15_000
    assert body[:MAX_BYTES].endswith(b"Disallow: /songs/1")
    faulty_site.robots = Page(200, body)
    robots = read(faulty_site)
    assert not allows(robots, "/early")
    assert allows(robots, "/songs/13")
    assert allows(robots, "/late")


@pytest.mark.parametrize("hops", [1, 5])
def test_D9_up_to_five_redirects_are_followed(faulty_site, hops):
    """And what is found there holds."""
    faulty_site.robots = Page(301, headers=(f"Location: /hop/{hops - 1}/robots.txt".encode(),))
    faulty_site.robots_behind_redirects = Page(200, RULES)
    assert not allows(read(faulty_site))
    assert len(faulty_site.requests) == 1 + hops


def test_D9_more_than_five_redirects_mean_no_rules(faulty_site):
    """The sixth is not followed; the host is taken to have no robots.txt."""
    faulty_site.robots = Page(301, headers=(b"Location: /hop/9/robots.txt",))
    faulty_site.robots_behind_redirects = Page(200, RULES)
    assert allows(read(faulty_site))
    assert len(faulty_site.requests) == 6


@pytest.mark.parametrize("location", [b"file:///etc/hostname", b"", b"gopher://x/", b"//"])
def test_D9_a_redirect_to_nowhere_means_no_rules(faulty_site, location):
    """Only http and https are followed."""
    faulty_site.robots = Page(302, headers=(b"Location: " + location,))
    assert allows(read(faulty_site))


def test_D9_no_header_of_the_source_is_sent(faulty_site):
    """Neither to the host nor to another it points to; the name of the crawler is."""
    elsewhere = f"Location: {faulty_site.other_url}/robots.txt".encode()
    faulty_site.robots = Page(302, headers=(elsewhere,))
    read(faulty_site)
    assert len(faulty_site.requests) > 1
    for seen in faulty_site.requests:
        assert TOKEN not in repr(seen.headers)
        assert "(+me@example.org)" in seen.headers["user-agent"]


def test_D9_over_tls_too():
    """The certificate is checked against the authority given."""
    with FaultySite(tls=True) as site:
        site.robots = Page(200, RULES)
        assert not allows(read(site))


@pytest.mark.parametrize(
    ("delay", "rate", "expected"),
    [
        (b"0.5", 100, 2),
        (b"10", 0, 0.1),
        (b"0.001", 100, 100),
        (b"0", 0, 0),
        (b"x", 7, 7),
        (b"-1", 7, 7),
    ],
)
def test_D9_a_crawl_delay_may_only_slow_down(delay, rate, expected):
    """It never makes a crawl faster than it was set to be."""
    robots = Robots("User-agent: *\nCrawl-delay: " + delay.decode())
    assert robots.slowed(rate) == pytest.approx(expected)


def test_D9_forbidden_numbers_are_denied_unasked():
    """They never reach the frontier; order and end are kept."""
    denied = []
    source = Pages("http://any.example")
    supply = AllowedSupply(
        IterableSupply(range(1, 40)), source, Robots(RULES.decode()), denied.append
    )
    taken = []
    while not supply.exhausted:
        taken += supply.take(7)
    assert denied == [13]
    assert taken == [num for num in range(1, 40) if num != 13]


def test_D9_a_long_run_of_forbidden_numbers_does_not_hold_anyone_up():
    """A thousand are looked at in one go, under the frontier's lock, and no more."""
    denied = []
    robots = Robots("User-agent: *\nDisallow: /")
    supply = AllowedSupply(
        IterableSupply(range(10_000)), Pages("http://any.example"), robots, denied.append
    )
    assert supply.take(64) == []
    assert 1000 <= len(denied) < 1100
    assert not supply.exhausted
    while not supply.exhausted:
        assert supply.take(64) == []
    assert len(denied) == 10_000


@pytest.mark.parametrize(
    ("source", "setting", "expected"),
    [
        (Pages("http://x"), None, True),
        (Pages("http://x"), "ignore", False),
        (open_source("genius", "t", base_url="http://x"), None, False),
        (open_source("genius", "t", base_url="http://x"), "obey", True),
        (lambda session, song_num, song_urls: None, "obey", False),
    ],
)
def test_D9_the_setting_overrides_the_source(source, setting, expected):
    """Web pages ask, the Genius API does not; `CRAWLER_ROBOTS` says otherwise."""
    assert asks_robots(source, setting) is expected


def web_pages(base_url: str) -> DeclaredSource:
    """Make a source of the song pages, as if they were web pages of their own."""
    source = open_source("genius", TOKEN, base_url=base_url)
    source.name, source.robots = "songs", True
    return source


def crawl_songs(site, folder, **options):
    """Crawl numbers 1 to 20 into a store; give the answer and the records."""
    store = str(folder / "store")
    source = web_pages(site.url("right"))
    answer = crawl(1, 21, store=store, base_url=site.base_url, function=source, **options)
    name = block_name(0)
    stored = open_store(store).read(name, timeout=10)
    return answer, ({} if stored is None else decode_block(stored.data, name))


def test_D9_a_run_leaves_forbidden_numbers_alone(faulty_site, tmp_path):
    """They fail as `robots` without a request, and all others are crawled; it is asked once."""
    faulty_site.robots = Page(200, b"User-agent: song-crawler\nDisallow: /*/songs/1")
    answer, records = crawl_songs(faulty_site, tmp_path)
    forbidden = {1, *range(10, 20)}
    assert {num for num, record in records.items() if record.error == "robots"} == forbidden
    assert answer.failed == len(forbidden)
    assert answer.found + answer.missing == 20 - len(forbidden)
    assert not answer.complete
    asked = [seen.number for seen in faulty_site.requests]
    assert asked.count(None) == 1
    assert sorted(num for num in asked if num is not None) == sorted({*range(1, 21)} - forbidden)


def test_D9_a_run_stops_before_its_first_page_when_the_host_fails(faulty_site, tmp_path):
    """`circuit`, with nothing asked but robots.txt."""
    faulty_site.robots = Page(503)
    answer, records = crawl_songs(faulty_site, tmp_path)
    assert answer.stopped_by == "circuit"
    assert (answer.requests, answer.remaining, records) == (0, 20, {})
    assert [seen.path for seen in faulty_site.requests] == ["/robots.txt"]


def test_D9_a_run_keeps_the_delay_asked_for(faulty_site, tmp_path):
    """Twenty pages with 50 ms from one to the next take a second, whatever the rate."""
    faulty_site.robots = Page(200, b"User-agent: *\nCrawl-delay: 0.05")
    answer, _ = crawl_songs(faulty_site, tmp_path, rate=1000)
    assert answer.seconds > 0.9
    assert answer.complete


def test_D9_a_run_that_is_told_to_ignore_it_does_not_ask(faulty_site, tmp_path):
    """`CRAWLER_ROBOTS=ignore`."""
    faulty_site.robots = Page(200, b"User-agent: *\nDisallow: /")
    answer, _ = crawl_songs(faulty_site, tmp_path, robots="ignore")
    assert answer.complete
    assert None not in [seen.number for seen in faulty_site.requests]
