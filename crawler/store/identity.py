"""A store knows what it holds: `store.json` names the source, its host, its schema and the format."""

import msgspec

from crawler.errors import StoreMismatchError
from crawler.store.contract import Content, Store, update

NAME = "store.json"


class Identity(msgspec.Struct, frozen=True):
    """Whose records a store holds; written once, by the first run.

    Attributes:
        source: Name of the source, or qualified name of a step 1 function.
        host: Host, and port where it is not the usual one, that the pages come from.
        schema: Changes when the meaning or the fields of `info` change.
        format: Format version of the blocks.
    """

    source: str
    host: str
    schema: str
    format: int


def claim_store(store: Store, identity: Identity, *, timeout: float) -> None:
    """Write `store.json` where there is none; else make sure that it says the same.

    An older format is accepted, since its blocks are read.

    Raises:
        StoreMismatchError: The store holds something else, in words that say what to do.
    """

    def claim(data: bytes | None) -> Content | None:
        if data is not None:
            _compare(store.location, _decode(store, data), identity)
            return None
        text = msgspec.json.format(msgspec.json.encode(identity)) + b"\n"
        return Content(text, "application/json")

    update(store, NAME, claim, timeout=timeout)


def read_identity(store: Store, *, timeout: float) -> Identity | None:
    """Read `store.json`; None where no run has written to the store yet.

    Raises:
        StoreMismatchError: It cannot be read.
    """
    stored = store.read(NAME, timeout=timeout)
    return None if stored is None else _decode(store, stored.data)


def _decode(store: Store, data: bytes) -> Identity:
    try:
        return msgspec.json.decode(data, type=Identity)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise StoreMismatchError(
            f"{NAME} in {store.location} cannot be read ({error}): restore an earlier version of "
            f"it, or name another store (CRAWLER_STORE)"
        ) from error


def _compare(location: str, known: Identity, wanted: Identity) -> None:
    if known.format > wanted.format:
        raise StoreMismatchError(
            f"{location} has format version {known.format}, this crawler writes {wanted.format}: "
            f"use the newer version of the crawler"
        )
    for field in ("source", "host", "schema"):
        has, wants = getattr(known, field), getattr(wanted, field)
        if has != wants:
            raise StoreMismatchError(
                f"{location} holds records of {field} {has!r}, this run would add some of "
                f"{wants!r}: name another store (CRAWLER_STORE or --store), or crawl with "
                f"{field} {has!r}"
            )
