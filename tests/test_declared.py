"""Declared sources: a TOML file in; addresses, headers, infos and mistakes in words out."""

from collections import Counter
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crawler.errors import Missing, PageError, SettingsError
from crawler.settings.reading import read_settings
from crawler.settings.settings import Secret
from crawler.source.declaration import read_declaration
from crawler.source.declared import (
    DeclaredSource,
    address_of,
    built_in_names,
    load_declaration,
    open_source,
)
from crawler.source.source import Source, traits_of

HEAD = 'name = "words"\nbase_url = "https://words.example/api"\nurl = "{base_url}/w/{song_num}"\n'
PLAIN = HEAD + '[fields]\nword = "word"\n'


def declared(text: str, token: str = "", **more) -> DeclaredSource:
    """Make the source of a text."""
    return DeclaredSource(read_declaration(text, Path("words.toml")), token, **more)


def json_page(page: object, rules: str = "", fields: str = 'word = "word"\n'):
    """Read a page by a source with these rules; the kind of error where it is refused."""
    source = declared(f"{HEAD}{rules}\n[fields]\n{fields}")
    body = page if isinstance(page, bytes) else msgspec.json.encode(page)
    try:
        info = source.info(7, body)
    except PageError as error:
        return error.kind
    except Missing:
        return "missing"
    assert {row.name: row.value for row in source.look(7, body)} == info
    return info


def mistake(text: str) -> str:
    """Return what is said of a text with a mistake."""
    with pytest.raises(SettingsError) as caught:
        read_declaration(text, Path("words.toml"))
    assert (caught.value.code, caught.value.field) == ("source_malformed", "CRAWLER_SOURCE")
    return str(caught.value)


def test_genius_is_a_file_among_the_built_in_ones():
    """Its name, identity and address are as before; it is read on the wire."""
    assert "genius" in built_in_names()
    source = open_source("genius", "token")
    traits = traits_of(source)
    assert isinstance(source, Source)
    assert (source.name, source.schema) == ("genius", "song-1")
    assert source.url(7) == "https://api.genius.com/songs/7"
    assert source.headers() == {"Authorization": "Bearer token", "Accept": "application/json"}
    assert (traits.reads_on_wire, traits.robots, traits.redirects) == (True, False, "fail")
    assert [field.name for field in traits.fields][:2] == ["title", "url"]


@pytest.mark.parametrize("name", built_in_names())
def test_every_built_in_source_is_right(name):
    """Its file is named as it is, and each of its pages has an address of its own."""
    source = open_source(name, "token")
    assert source.name == name
    assert source.url(1) != source.url(2)


def test_two_runs_of_a_source_count_their_oddities_apart():
    """A source is made for one run."""
    one, other = declared(PLAIN), declared(PLAIN)
    one.info(7, b'{"word":[1]}')
    assert (one.odd, other.odd) == ({"word": 1}, {})


@pytest.mark.parametrize(
    ("template", "address"),
    [
        ("{base_url}/w/{song_num}", "https://x.example/w/42"),
        ("{base_url}/w/{song_num}.json", "https://x.example/w/42.json"),
        ("{base_url}/{song_num:04d}", "https://x.example/0042"),
        ("{base_url}/{song_num:01d}/", "https://x.example/42/"),
        ("{base_url}/{song_num:06d}/{song_num}", "https://x.example/000042/42"),
        ("{base_url}/?id={song_num}&key={token}&x", "https://x.example/?id=42&key=a%26b%2F&x"),
        ("{base_url}/100%25/{song_num}", "https://x.example/100%25/42"),
    ],
)
def test_a_template_gives_the_address_of_a_number(template, address):
    """Numbers are padded where it says so; a token is percent-encoded."""
    assert address_of(template, "https://x.example", "a&b/")(42) == address


@settings(deadline=None)
@given(st.integers(0, 10**12), st.integers(1, 12))
def test_padding_loses_no_digit(num, width):
    """Whatever the width, another number has another address."""
    made = address_of(f"{{base_url}}/{{song_num:0{width}d}}", "https://x.example")(num)
    assert int(made.rpartition("/")[2]) == num


@pytest.mark.parametrize(
    ("rules", "page", "expected"),
    [
        ("", {"word": "a", "more": [1]}, {"word": "a"}),
        ("", {}, {"word": None}),
        ("", [], "schema"),
        ("", b"null", "schema"),
        ("", b"", "json"),
        ('[page]\nrecord = "data"', {"data": {"word": "a"}}, {"word": "a"}),
        ('[page]\nrecord = "data"', {"data": None}, "schema"),
        ('[page]\nrecord = ["a.b"]', {"a.b": {"word": "a"}}, {"word": "a"}),
        ('[page]\nid = "id"', {"id": 7, "word": "a"}, {"word": "a"}),
        ('[page]\nid = "id"', {"id": "7", "word": "a"}, {"word": "a"}),
        ('[page]\nid = "id"', {"id": "007", "word": "a"}, {"word": "a"}),
        ('[page]\nid = "id"', {"id": 8, "word": "a"}, "mismatch"),
        ('[page]\nid = "id"', {"word": "a"}, "schema"),
        ('[page]\nid = "of.id"', {"of": {"id": 7}, "word": "a"}, {"word": "a"}),
        ('[[page.missing]]\nbody = "null"', b" null\n", "missing"),
        ('[[page.missing]]\nbody = "null"', {"word": "a"}, {"word": "a"}),
        ('[[page.missing]]\nbody = "{}"', b" {} ", "missing"),
        ("[[page.missing]]\nempty = true", b" \n", "missing"),
        ('[[page.missing]]\npath = "words"\nempty = true', {"words": []}, "missing"),
        ('[[page.missing]]\npath = "words"\nempty = true', {"words": [1]}, {"word": None}),
        ('[[page.missing]]\npath = "word"\nabsent = true', {"other": 1}, "missing"),
        ('[[page.missing]]\npath = "word"\nabsent = true', {"word": None}, "missing"),
        ('[[page.missing]]\npath = "word"\nabsent = true', {"word": "a"}, {"word": "a"}),
        ('[[page.missing]]\npath = "of"\nabsent = true', {"of": {"x": 1}}, {"word": None}),
        ('[[page.missing]]\npath = "word"\nequals = ""', {"word": ""}, "missing"),
        ('[[page.missing]]\npath = "gone"\nequals = true', {"gone": True}, "missing"),
        ('[[page.missing]]\npath = "gone"\nequals = true', {"gone": 1}, {"word": None}),
        ('[[page.missing]]\npath = "n"\nequals = 1', {"n": True}, {"word": None}),
        ('[[page.missing]]\npath = "n"\nequals = 1', {"n": 1}, "missing"),
        ('[[page.ok]]\npath = "status"\nequals = "ok"', {"status": "ok"}, {"word": None}),
        ('[[page.ok]]\npath = "status"\nequals = "ok"', {"status": "error"}, "schema"),
        ('[[page.ok]]\npath = "status"\nequals = "ok"', {"word": "a"}, "schema"),
        ('[[page.ok]]\npath = "error"\nabsent = true', {"error": {"code": 1}}, "schema"),
        ('[[page.ok]]\npath = "error"\nabsent = true', {"word": "a"}, {"word": "a"}),
    ],
)
def test_a_rule_says_what_a_page_is(rules, page, expected):
    """Found, missing, or the kind of failure, as the file declares it."""
    assert json_page(page, rules) == expected


@pytest.mark.parametrize(
    ("fields", "page", "expected"),
    [
        ('w = ["a.b", "c"]', {"a.b": {"c": "x"}}, {"w": "x"}),
        ('w = { path = "n", type = "integer" }', {"n": "12"}, {"w": 12}),
        ('w = { path = "n", type = "number" }', {"n": 12}, {"w": 12.0}),
        ('w = { path = "n", type = "number" }', {"n": "1.5"}, {"w": 1.5}),
        ('w = { path = "n", type = "boolean" }', {"n": True}, {"w": True}),
        ('w = { path = "n", type = "boolean" }', {"n": "false"}, {"w": False}),
        ('w = { path = "n", type = "boolean" }', {"n": 1}, {"w": None}),
        ('w = { path = "n", type = "json" }', {"n": {"a": [1]}}, {"w": {"a": [1]}}),
        ('w = { path = "n.a", type = "json" }', {"n": [{"a": 1}, {}]}, {"w": [1, None]}),
        (
            'w = { path = "n", type = "json" }\nv = "n.a"',
            {"n": {"a": "x"}},
            {"w": {"a": "x"}, "v": "x"},
        ),
        (
            'w = { path = "n", type = "json" }\nv = "n.a"',
            {"n": {"a": [1]}},
            {"w": {"a": [1]}, "v": None},
        ),
        ('w = "n"\nv = { path = "n", type = "integer" }', {"n": "5"}, {"w": "5", "v": 5}),
        ('w = "a.b.c"', {"a": {"b": None}}, {"w": None}),
        ('w = "a.b.c"', {"a": {}}, {"w": None}),
        ('w = "a.b"\nv = "a.c"', {"a": None}, {"w": None, "v": None}),
        ('"w.x" = "a"', {"a": "x"}, {"w.x": "x"}),
        ("w = 'a\"b'", {'a"b': "x"}, {"w": "x"}),
        ('w = "class"\nreturn = "def"', {"class": "x", "def": "y"}, {"w": "x", "return": "y"}),
    ],
)
def test_a_field_is_taken_from_its_path(fields, page, expected):
    """Types, lists on the way, a part and what lies in it, names of any kind."""
    assert json_page(page, fields=fields) == expected


def test_C10_what_is_read_twice_is_judged_as_what_is_read_once():
    """A part that one field keeps whole and another one looks into: odd values count, types differ."""
    rules = '[[page.missing]]\npath = "n"\nequals = 1\n'
    fields = 'whole = { path = "n", type = "json" }\ninner = "n.a"\n'
    source = declared(f"{HEAD}{rules}[fields]\n{fields}")
    assert source.info(7, b'{"n":{"a":[1]}}') == {"whole": {"a": [1]}, "inner": None}
    assert source.odd == {"inner": 1}
    assert source.info(7, b'{"n":true}') == {"whole": True, "inner": None}
    with pytest.raises(Missing):
        source.info(7, b'{"n":1}')


@settings(deadline=None)
@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False)
        | st.text(max_size=5),
        lambda inside: (
            st.lists(inside, max_size=3)
            | st.dictionaries(st.sampled_from(["a", "b", "id", "n"]), inside, max_size=4)
        ),
        max_leaves=12,
    )
)
def test_C10_the_quick_way_and_the_slow_one_agree(page):
    """Whatever a page holds, both take the same from it, and count the same as odd."""
    text = f"""{HEAD}
        [page]
        record = "a"
        [[page.ok]]
        path = "b"
        absent = true
        [[page.missing]]
        path = "n"
        equals = 0
        [fields]
        text = "b.a"
        n = {{ path = "n", type = "integer" }}
        f = {{ path = "b.n", type = "number" }}
        any = {{ path = "id.a", type = "json" }}
    """
    source, outcomes = declared(text), []
    body = msgspec.json.encode({"a": page, "n": page})
    for way in (source.info, source.look):
        try:
            outcomes.append(way(7, body))
        except (PageError, Missing) as error:
            outcomes.append(str(error))
    quick, slow = outcomes
    rows = slow if isinstance(slow, list) else []
    assert quick == ({row.name: row.value for row in rows} or slow)
    assert source.odd == Counter(row.name for row in rows if " is no " in row.trouble)


HTML = (
    HEAD
    + """
[page]
format = "html"
record = "main"
id = { css = "link[rel=canonical]", attr = "href" }
[[page.missing]]
css = ".no-such-word"
[[page.ok]]
css = "h1"
[fields]
word = { css = "h1" }
year = { css = ".year", type = "integer" }
uses = { css = "ul.uses li", type = "json" }
more = { css = "a.more", attr = "href" }
"""
)


def html_page(body: str | bytes, num: int = 7):
    """Read a web page; the kind of error where it is refused."""
    source = declared(HTML)
    try:
        return source.info(num, body.encode() if isinstance(body, str) else body), source.odd
    except PageError as error:
        return error.kind
    except Missing:
        return "missing"


WORD = (
    "<!doctype html><main><link rel=canonical href=https://words.example/api/w/7><h1>Vase &amp; "
    "<i> lid</i></h1><b class=year>1650</b><ul class=uses><li>a<li>b</ul><a class=more href=/x>m</a>"
)


def test_a_web_page_is_read_by_selectors():
    """Text with single blanks, an attribute, a list of all that match; robots.txt is asked first."""
    info, odd = html_page(WORD)
    assert info == {"word": "Vase & lid", "year": 1650, "uses": ["a", "b"], "more": "/x"}
    assert not odd
    traits = traits_of(declared(HTML))
    assert (traits.reads_on_wire, traits.robots) == (False, True)


def test_C10_an_odd_text_of_a_web_page_is_null_and_counted():
    """As in JSON; what is not there is null and nothing odd."""
    info, odd = html_page(WORD.replace("1650", "about 1650").replace("more", "less"))
    assert (info["year"], info["more"], odd) == (None, None, {"year": 1})


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        (WORD.replace("/7", "/8"), "mismatch"),
        (WORD.replace("canonical", "x"), "schema"),
        (WORD.replace("main", "div"), "schema"),
        (WORD.replace("h1", "h2"), "schema"),
        ("<p class=no-such-word>Sorry", "missing"),
        ("<title>One moment</title>Are you a robot?", "schema"),
        ("", "schema"),
    ],
)
def test_C4_a_web_page_that_is_another_is_no_record(page, expected):
    """A captcha, another page, a page that says that there is none: each by its name."""
    assert html_page(page) == expected


@pytest.mark.parametrize(
    "body",
    [
        WORD.replace("Vase", "Käse").encode(),
        b"<meta charset=iso-8859-15>" + WORD.replace("Vase", "Käse").encode("iso-8859-15"),
        WORD.replace("Vase", "Käse").encode("cp1252"),
        b"<meta charset=nonsense>" + WORD.replace("Vase", "Käse").encode("cp1252"),
    ],
)
def test_C3_a_web_page_is_read_in_its_charset(body):
    """UTF-8, what the page names, or what the web takes it for."""
    assert html_page(body)[0]["word"] == "Käse & lid"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            PLAIN + "[page]\nrecrod = 'x'\n",
            "line 7: page.recrod is unknown here: did you mean record?",
        ),
        (
            PLAIN.replace("name =", "nmae ="),
            "line 1: nmae is unknown here: did you mean name?",
        ),
        (
            PLAIN + "[[page.ok]]\nmeta.status = 200\n",
            "line 7: page.ok.0.meta meta.status without quotes is a table",
        ),
        (
            PLAIN + "[[page.ok]]\npath = meta.status\n",
            "line 7: 'path = meta.status' is not TOML (Invalid value): a text is written in quotes",
        ),
        (
            PLAIN + "[[page.ok]]\npath = 'a'\nequals = 1\n[[page.ok]]\npath = 'a'\n",
            "line 9: page.ok.1 must say one of equals",
        ),
        (PLAIN + "[[page.ok]]\nequals = 1\n", "line 6: page.ok.0 must say where: path"),
        (
            PLAIN + "[[page.missing]]\ncss = 'a'\n",
            "line 6: page.missing.0 css is not for format 'json'",
        ),
        (
            PLAIN + "[[page.missing]]\nbody = 'a'\nempty = true\n",
            "line 6: page.missing.0 body or empty alone",
        ),
        (PLAIN + "n = 5\n", "line 6: fields.n must be a path, or {"),
        (
            PLAIN + "n = { path = 'n', type = 'int' }\n",
            "line 6: fields.n.type must be one of text, integer, number, boolean, json",
        ),
        (
            PLAIN + "n = { paht = 'n' }\n",
            "line 6: fields.n.paht is unknown here: did you mean path?",
        ),
        (PLAIN + "n = 'a..b'\n", "line 6: fields.n is an empty path, or has an empty name"),
        (PLAIN + "n = { css = 'h1' }\n", 'line 6: fields.n is written "dotted.path"'),
        (PLAIN + "a.b = 'c'\n", "line 6: fields.a.b is a table in a table"),
        (HEAD, "line 1: fields is missing: it must be a table"),
        (HEAD + "[fields]\n", "line 4: fields must be a table with a line for each field"),
        (PLAIN.replace("{song_num}", "{id}"), "line 3: url {id} is no placeholder"),
        (
            PLAIN.replace("{song_num}", "{song_num:05}"),
            "line 3: url {song_num:05} is no placeholder",
        ),
        (PLAIN.replace("{song_num}", "{song_num:013d}"), "line 3: url {song_num:013d} is no"),
        (PLAIN.replace("{song_num}", "{song_num!r}"), "line 3: url {song_num!r} is no"),
        (PLAIN.replace("{song_num}", "1"), "line 3: url must hold {song_num}"),
        (
            PLAIN.replace("{base_url}/w", "https://evil.example"),
            "line 3: url must begin with {base_url}/",
        ),
        (PLAIN.replace("{base_url}/w", "{base_url}w"), "line 3: url must begin with {base_url}/"),
        (PLAIN.replace("/w/", "/{w/"), "line 3: url"),
        (PLAIN.replace("/w/", "/ü/"), "line 3: url must be printable ASCII"),
        (
            'token = "AWS_SECRET_ACCESS_KEY"\n' + PLAIN,
            "line 1: token AWS_SECRET_ACCESS_KEY is a name of cloud",
        ),
        ('token = "GOOGLE_APPLICATION_CREDENTIALS"\n' + PLAIN, "line 1: token GOOGLE_APPLICATION"),
        (
            'token = "CRAWLER_STORE"\n' + PLAIN,
            "line 1: token CRAWLER_STORE is the name of a setting",
        ),
        ('token = "WORDS_KEY"\n' + PLAIN, "line 1: token the token is sent nowhere"),
        (PLAIN + "[headers]\nX = '{token}'\n", 'no token = "NAME" says which environment variable'),
        (
            'token = "K_EY"\n' + PLAIN.replace("/w/", "/{token}/"),
            "line 4: url {token} may stand in the query",
        ),
        (
            PLAIN + "[headers]\nUser-Agent = 'me'\n",
            "line 7: headers.User-Agent is set by the crawler",
        ),
        (
            PLAIN + "[headers]\nX = 'a\\u000d'\n".replace("'", '"'),
            "line 7: headers.X must be printable ASCII",
        ),
        (PLAIN + "[headers]\n'a b' = 'x'\n", "line 7: headers.a b is not the name of a header"),
        (PLAIN + "[headers]\nX = 5\n", "line 7: headers.X must be a text, not a whole number"),
        (HTML.replace('{ css = "h1" }', '"h1"'), "of a web page is written { css"),
        (HTML.replace('css = ".no-such-word"', 'path = "a"'), "path is not for format 'html'"),
        (PLAIN.replace("https", "ftp"), "line 2: base_url must be an http(s) address"),
        (PLAIN.replace('"words"', '"Words!"'), "line 1: name must be at most 40 small letters"),
        ('rate = "fast"\n' + PLAIN, "line 1: rate must be a number, not a text"),
        ("rate = 0\n" + PLAIN, "line 1: rate must be a number > 0.0"),
        ("format = 'html'\n" + PLAIN, "line 1: format is unknown here: it stands in [page]"),
        (PLAIN + "[page]\nxyz = 1\n", "there are format, record, id, ok, missing"),
        (PLAIN.replace('"words"', '"words'), "line 1: 'name = \"words' is not TOML"),
    ],
)
def test_a_mistake_is_told_with_its_line(text, said):
    """File, line, what is wrong there, and the name that was perhaps meant."""
    told = mistake(text)
    assert told.startswith("words.toml")
    assert said in told


def test_a_selector_that_is_none_is_told():
    """It is tried before the first request."""
    with pytest.raises(SettingsError, match=r"'h1\[' is no CSS selector"):
        declared(HTML.replace('{ css = "h1" }', '{ css = "h1[" }'))


def test_a_source_that_is_not_there_is_told(tmp_path):
    """A misspelt name is told its neighbour, a file that cannot be read its cause."""
    with pytest.raises(SettingsError, match=r"no source 'genuis': did you mean genius"):
        load_declaration("genuis")
    with pytest.raises(SettingsError, match=r"none\.toml cannot be read"):
        load_declaration(str(tmp_path / "none.toml"))


def test_a_token_is_redacted_in_both_forms():
    """As it is, and as it stands in an address."""
    text = 'token = "WORDS_KEY"\n' + PLAIN.replace("{song_num}", "{song_num}?key={token}")
    source = declared(text, "a/b+c")
    assert source.url(7) == "https://words.example/api/w/7?key=a%2Fb%2Bc"
    assert source.secrets == ("a/b+c", "a%2Fb%2Bc")


def test_what_a_file_says_of_the_site_is_passed_on():
    """Canary, redirects, rate and the site's own names of rate headers."""
    text = f"""canary = 3
        redirects = "follow"
        rate = 2
        robots = true
        {PLAIN}
        [rate_headers]
        remaining = "X-Words-Left"
    """
    assert traits_of(declared(text, base_url="http://127.0.0.1")).canary is None
    traits = traits_of(declared(text))
    assert (traits.canary, traits.redirects, traits.rate, traits.robots) == (3, "follow", 2.0, True)
    assert traits.rate_headers == {"remaining": "X-Words-Left"}


@pytest.fixture
def words(tmp_path):
    """A file that declares a source with a token of its own."""
    path = tmp_path / "words.toml"
    path.write_text(f'token = "WORDS_KEY"\n{PLAIN}[headers]\nX-Key = "{{token}}"\n')
    return str(path)


GIVEN = {"CRAWLER_CONTACT": "me@example.org", "GENIUS_TOKEN": "another-token"}


def test_a_source_brings_its_address_its_store_and_its_token(words):
    """Where nothing else is said; the token of another source is never sent."""
    environ = GIVEN | {"CRAWLER_SOURCE": words, "WORDS_KEY": "key-1"}
    made = read_settings(environ)
    assert (made.base_url, made.store) == ("https://words.example/api", "data/words")
    assert made.token == Secret("key-1")
    with pytest.raises(SettingsError, match="WORDS_KEY is missing or empty"):
        read_settings(environ | {"WORDS_KEY": ""})
    made = read_settings(environ, base_url="http://127.0.0.1", store="here", token="other")
    assert (made.base_url, made.store) == ("http://127.0.0.1", "here")
    assert made.token == Secret("other")


def test_a_token_stands_in_the_file_of_settings_too(words, tmp_path):
    """`crawler.env` may hold the variable that a source names."""
    (tmp_path / "crawler.env").write_text("WORDS_KEY=key-2\n")
    made = read_settings(GIVEN, env_file=tmp_path / "crawler.env", source=words)
    assert made.token == Secret("key-2")


def test_a_source_without_a_token_gets_none(tmp_path):
    """Not even where the environment holds one."""
    (tmp_path / "plain.toml").write_text(PLAIN)
    made = read_settings(GIVEN | {"CRAWLER_SOURCE": str(tmp_path / "plain.toml")})
    assert made.token is None


def test_a_mistake_in_a_file_is_told_like_one_in_a_setting(tmp_path):
    """Before the first request, beside the others."""
    (tmp_path / "bad.toml").write_text(PLAIN + "[page]\nrecrod = 'x'\n")
    with pytest.raises(SettingsError, match=r"bad\.toml, line 7") as caught:
        read_settings({}, source=str(tmp_path / "bad.toml"), rate=-1)
    assert caught.value.code == "rate_malformed" or caught.value.also


def test_a_source_and_a_function_exclude_each_other(words):
    """Which of them is meant cannot be guessed."""
    with pytest.raises(SettingsError, match="set one"):
        read_settings(GIVEN, source=words, function="my:step")


def test_defaults_of_the_settings_are_those_of_genius():
    """The table shows what the file says."""
    made, declaration = read_settings(GIVEN), load_declaration("genius")
    assert made.base_url == declaration.base_url
    assert made.store == f"data/{declaration.name}"


def test_fields_chosen_by_name_keep_their_declared_type():
    """`CRAWLER_FIELDS` names parts of the record; a store holds one choice."""
    source = open_source("genius", "t", fields=["stats.pageviews", "media"])
    assert source.schema == "song-1:stats.pageviews,media"
    assert [field.type for field in source.fields] == ["integer", "json"]
    with pytest.raises(SettingsError, match="reads web pages"):
        declared(HTML, fields=["word"])
