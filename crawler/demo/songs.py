"""The songs of the embedded site: made up from their numbers, in many scripts, some titles odd."""

from typing import Any

import msgspec

Words = tuple[tuple[str, ...], tuple[str, ...], str]

_ENGLISH: Words = (
    ("Midnight", "Golden", "Broken", "Electric", "Paper", "Silent", "Winter", "Neon", "Lonesome"),
    ("River", "Train", "Heart", "Avenue", "Letter", "Summer", "Radio", "Lighthouse", "Machine"),
    " ",
)
_SCRIPTS: tuple[Words, ...] = (
    (("L'été", "Où va", "Déjà", "Ça, c'est"), ("la forêt", "l'œuvre", "Noël", "ma naïveté"), " "),
    (("Straße nach", "Über", "Grüße aus"), ("Köln", "den Flüssen", "Österreich"), " "),
    (("Canção do", "São", "Coração de"), ("Sertão", "João", "Verão"), " "),
    (("İstanbul'da", "Güneşli", "Şarkısız"), ("gölge", "çiçek", "ağaç"), " "),
    (("Đêm", "Một", "Những"), ("Việt Nam", "người phố", "mưa đầu mùa"), " "),
    (("Η νύχτα", "Το τραγούδι", "Ένα καράβι"), ("της θάλασσας", "των αστεριών"), " "),
    (("Последний", "Тихий", "Северный"), ("вечер", "поезд", "ветер"), " "),
    (("أغنية", "ليلة", "طريق"), ("القمر", "البحر", "المدينة"), " "),
    (("שיר", "לילה", "דרך"), ("הירח", "הים", "ירושלים"), " "),
    (("شب", "آواز", "باران"), ("تهران", "بی‌پایان", "پاییز"), " "),
    (("रात", "गीत", "सपनों"), ("का शहर", "की बारिश", "की नदी"), " "),
    (("คืน", "เพลง", "ทาง"), ("ของดวงจันทร์", "แห่งทะเล", "กลับบ้าน"), ""),
    (("午夜", "金色", "無聲"), ("列車", "河流", "的信"), ""),
    (("夜の", "最後の", "春の"), ("手紙", "ラジオ", "うみ"), ""),
    (("한밤의", "마지막", "푸른"), ("기차", "편지", "바다"), " "),
    (("ღამის", "ჩემი", "ძველი"), ("სიმღერა", "მდინარე", "ქალაქი"), " "),
    (("የሌሊት", "የእኔ", "አሮጌ"), ("ዘፈን", "ወንዝ", "ከተማ"), " "),
)
_ODD_TITLES = (
    "=cmd|' /C calc'!A0",
    '=HYPERLINK("http://127.0.0.1/","free")',
    "+1+1",
    "-2+3",
    "@SUM(A1:A9)",
    '<script>alert("song")</script>',
    "</td></table><b>bold &amp; brash",
    'She said "no", twice',
    "It's a 'quoted' one; DROP TABLE songs;--",
    "Line one\nLine two",
    "Carriage\r\nreturn",
    "Tab\there, back\\slash",
    "Line\u2028and paragraph\u2029separators",
    "\u202eoverride from right to left\u202c",
    "Mixed \u05e9\u05dc\u05d5\u05dd and مرحبا, 123",
    "🎵🔥👩‍👩‍👧‍👦🏳️‍🌈",
    "Cafe\u0301 de\u0301compose\u0301",
    "Z\u0336a\u0336l\u0336g\u0336o\u0336",
    "\u200bzero\u200bwidth\ufeff",
    "\x1b[31mred\x1b[0m",
    " leading and trailing ",
    "null",
    "NaN",
    "1984",
    "007",
    "1e3",
    "true",
    "2020-01-01",
    "a,b;c|d",
    "{{ template }} ${HOME} %s %(x)s {0}",
    "../../etc/passwd",
    "",
    "The Very Long One " * 20,
)


def make_title(bits: int) -> str:
    """Make a title out of some 30 bits, the same for the same bits.

    Three in 100 are odd; of the others half are English, half in one of the other scripts.
    """
    kind = bits % 100
    if kind < 3:
        return _ODD_TITLES[(bits >> 7) % len(_ODD_TITLES)]
    words = _ENGLISH if kind < 50 else _SCRIPTS[(bits >> 7) % len(_SCRIPTS)]
    first, second, joint = words
    return first[(bits >> 13) % len(first)] + joint + second[(bits >> 19) % len(second)]


MISSING_PERCENT = 9
"""Numbers without a song, in 100; as on the real site (1.92 of 2.11 million were there in 2019)."""

_FAMILIES = (
    *("Ramos", "Okafor", "Lindqvist", "Nakamura", "O'Hara"),
    *("Şahin", "Петрова", "王", "حداد", "García"),
)
_BANDS = ("The", "DJ", "Lil", "MC", "Trio", "Orquesta", "Sœur", "Los", "グループ", "Dr.")
_PLACES = (
    "in a kitchen in Leeds",
    "on a night bus",
    "between two tours",
    "in one take",
    "over a winter",
)
_STORY = (
    "This song was written {place} and is the {ordinal} of its year. Its verses follow somebody "
    "who counts the lights on the other shore, gives each one a name, and forgets them all by the "
    "morning. The chorus, first hummed into a telephone, was kept as it was, with the rain on the "
    "window and a chair that creaks in the second bar. Listeners have heard in it a farewell, a "
    "recipe and a railway timetable; the writers say that it is all three. On stage it is played "
    "slower each year, and the last line is left to whoever stands in front. A second version, for "
    "voice and harmonium, was recorded for the radio and never sent; a third is said to exist on a "
    "cassette without a label, in a drawer, in a house by the canal that has been sold since. None "
    "of this is true, since the song was made up from its number."
)
_MASK = 0xFFFFFFFFFFFFFFFF


def song(song_num: int) -> dict[str, Any] | None:
    """Make the song object of a number, with the fields of the Genius API, or None: it has none.

    `album` and `release_date` are null now and then, `stats.pageviews` and `album` also absent.
    """
    bits = scatter(song_num)
    if bits % 100 < MISSING_PERCENT:
        return None
    more = scatter(~song_num)
    title, artist = make_title(bits >> 8), _artist(more >> 8)
    path = f"/demo-artist-{artist['id']}-song-{song_num}-lyrics"
    date = _release_date(more >> 16)
    made = {
        "annotation_count": more % 40,
        "api_path": f"/songs/{song_num}",
        "artist_names": artist["name"],
        "description": {"plain": _STORY.format(place=_PLACES[bits % 5], ordinal=more % 400 + 1)},
        "full_title": f"{title} by {artist['name']}",
        "header_image_url": f"https://images.example/{bits:016x}.1000x1000x1.png",
        "id": song_num,
        "lyrics_owner_id": more % 1_000_000,
        "lyrics_state": "complete",
        "path": path,
        "pyongs_count": bits % 90 if bits & 7 else None,
        "recording_location": _PLACES[more % 5],
        "release_date": date,
        "release_date_for_display": date,
        "song_art_image_url": f"https://images.example/{more:016x}.300x300x1.png",
        "stats": _stats(bits >> 20, more >> 24),
        "title": title,
        "title_with_featured": title,
        "url": f"https://genius.example{path}",
        "current_user_metadata": {"permissions": [], "interactions": {"pyong": False}},
        "media": _media(bits),
        "primary_artist": artist,
        "producer_artists": [_artist(bits >> 12)],
        "writer_artists": [_artist(more >> 20), _artist(bits >> 28)],
        "song_relationships": [],
        "verified_annotations_by": [],
    }
    return made | _album(song_num, more >> 32, artist)


def song_body(song_num: int) -> bytes | None:
    """Encode the site's answer about a number, about 3 kB of JSON, or None where it has no song."""
    made = song(song_num)
    if made is None:
        return None
    return msgspec.json.encode({"meta": {"status": 200}, "response": {"song": made}})


def error_body(status: int, message: str) -> bytes:
    """Encode the site's answer to a request that it does not fulfil: `{"meta": {…}}`."""
    return msgspec.json.encode({"meta": {"status": status, "message": message}})


def scatter(value: int) -> int:
    """Spread a number over 64 bits, the same way every time.

    Source: the finaliser of splitmix64 (Steele, Lea and Flood, OOPSLA 2014).
    """
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def _artist(bits: int) -> dict[str, Any]:
    """One of 500 artists, always with the same name."""
    artist_id = bits % 500 + 1
    name = f"{_BANDS[artist_id % 10]} {_FAMILIES[artist_id // 10 % 10]} {artist_id}"
    return {
        "api_path": f"/artists/{artist_id}",
        "id": artist_id,
        "image_url": f"https://images.example/artist-{artist_id}.1000x1000x1.png",
        "is_verified": artist_id % 3 == 0,
        "name": name,
        "url": f"https://genius.example/artists/{artist_id}",
    }


def _album(song_num: int, bits: int, artist: dict[str, Any]) -> dict[str, Any]:
    """Absent 3 times in 100, null 12 times."""
    kind = bits % 100
    if kind < 3:
        return {}
    if kind < 15:
        return {"album": None}
    album_id = song_num // 12 + 1
    name = f"{make_title(scatter(album_id))} (Volume {album_id})"
    return {
        "album": {"api_path": f"/albums/{album_id}", "id": album_id, "name": name, "artist": artist}
    }


def _release_date(bits: int) -> str | None:
    """Null 15 times in 100; the later the year, the more songs, 1960 to 2025."""
    if bits % 100 < 15:
        return None
    early, late = (bits >> 7) % 66, (bits >> 14) % 66
    month, day = (bits >> 21) % 12 + 1, (bits >> 28) % 28 + 1
    return f"{1960 + max(early, late)}-{month:02d}-{day:02d}"


def _stats(bits: int, more: int) -> dict[str, Any]:
    """Page views are absent 20 times in 100 and null 3 times; few songs have very many."""
    made: dict[str, Any] = {
        "accepted_annotations": more % 20,
        "hot": False,
        "unreviewed_annotations": bits % 5,
    }
    kind = more % 100
    if kind >= 20:
        made["pageviews"] = None if kind < 23 else 5000 + (bits & 0x3FF) * (2 ** (more >> 7 & 15))
    return made


def _media(bits: int) -> list[dict[str, Any]]:
    """None, one or two places where it can be heard."""
    video = {"provider": "youtube", "type": "video", "url": f"https://video.example/{bits:x}"}
    audio = {"provider": "spotify", "type": "audio", "url": f"https://audio.example/{bits:x}"}
    return [video, audio][: bits % 3]
