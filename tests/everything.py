"""A source whose every number meets another fault of the table, so that one crawl meets them all."""

import os

from crawler.source.declared import DeclaredSource, load_declaration
from tests.faulty_table import FAULTS

TOKEN = "tok-MARKED-4711-do-not-tell"
"""Looked for, byte by byte, in all that a run leaves."""

SITE_VARIABLE = "EVERYTHING_SITE"

MET = [
    *(
        name
        for name in FAULTS
        if name not in ("status", "echo", "429", "503", "half-500", "reset-reused", "closed-reused")
    ),
    *(f"status:{code}" for code in (400, 404, 410, 418, 451, 500, 502, 504, 599)),
    *(f"echo:{code}" for code in (400, 404, 418, 451, 500)),
    *("429:0@1", "429:abc@1", "503:long@1"),  # for ever they would never end
]
"""Faults that do not end a run; number `2n` meets the `n`th, odd numbers get right answers."""

STOP = 2 * len(MET)


class Everything(DeclaredSource):
    """Asks for each number at another of the site's addresses."""

    def __init__(self) -> None:
        super().__init__(load_declaration("genius"), TOKEN)
        self._site = os.environ[SITE_VARIABLE]

    def url(self, song_num: int) -> str:
        """Say where the number meets its fault."""
        fault = "right" if song_num % 2 else MET[song_num // 2 % len(MET)]
        return f"{self._site}/{fault}/songs/{song_num}"
