"""The page of the benchmarks: 3.3 kB of JSON shaped like a song of the Genius API."""

import json

TITLE = "Song number {num}"
URL = "https://genius.example/songs/{num}"


def page_template(mark: str) -> str:
    """Write one page as compact JSON in which `mark` stands where the song number goes.

    The fields and nesting are those of https://schemas.apis.io/schemas/genius/genius-song;
    `[mark]` as a number is spliced in as text, so the result is JSON once the mark is replaced.
    """
    page = {"meta": {"status": 200}, "response": {"song": _song(mark)}}
    text = json.dumps(page, separators=(",", ":"))
    return text.replace(f'"id":"{mark}"', f'"id":{mark}')


def _song(mark: str) -> dict[str, object]:
    return {
        "_type": "song",
        "annotation_count": 7,
        "api_path": f"/songs/{mark}",
        "apple_music_id": "1440742903",
        "artist_names": "The Measured Ones",
        "description": {"plain": "A song that is as long as most, no more and no less. " * 6},
        "embed_content": f"<div class=embed data-song-id={mark}>Read the song on the site</div>",
        "full_title": f"Song number {mark} by The Measured Ones",
        "header_image_url": "https://images.example/9f2c6e1b7d3a4c58b0e1.1000x1000x1.jpg",
        "id": mark,
        "lyrics_owner_id": 104344,
        "lyrics_state": "complete",
        "path": f"/The-measured-ones-song-number-{mark}-lyrics",
        "pyongs_count": 12,
        "recording_location": "Studio 2, second floor",
        "release_date": "2017-03-09",
        "release_date_for_display": "March 9, 2017",
        "stats": {"accepted_annotations": 5, "contributors": 31, "hot": False, "pageviews": 51234},
        "title": TITLE.format(num=mark),
        "title_with_featured": f"Song number {mark} (Ft. The Guests)",
        "url": URL.format(num=mark),
        "album": {
            "api_path": "/albums/9431",
            "cover_art_url": "https://images.example/4c1d7e0b2f.600x600x1.jpg",
            "full_title": "The Long Record by The Measured Ones",
            "name": "The Long Record",
            "url": "https://genius.example/albums/The-measured-ones/The-long-record",
            "artist": _artist(1421, "The Measured Ones"),
        },
        "featured_artists": [_artist(2001, "The Guests")],
        "media": [
            {"provider": "youtube", "type": "video", "url": "http://www.video.example/?v=a1b2c3"},
            {"provider": "spotify", "type": "audio", "url": "https://audio.example/track/4b2c"},
        ],
        "primary_artist": _artist(1421, "The Measured Ones"),
        "producer_artists": [_artist(3001, "First Producer"), _artist(3002, "Second Producer")],
        "writer_artists": [_artist(4001, "A Writer"), _artist(4002, "Another Writer")],
    }


def _artist(num: int, name: str) -> dict[str, object]:
    slug = name.replace(" ", "-")
    return {
        "api_path": f"/artists/{num}",
        "id": num,
        "image_url": f"https://images.example/{num}8e5a3b9c.300x300x1.jpg",
        "is_meme_verified": False,
        "is_verified": True,
        "name": name,
        "url": f"https://genius.example/artists/{slug}",
    }
