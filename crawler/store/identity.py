"""A store knows what it holds: `store.json` names the source, its host, its schema and the format."""

from collections.abc import Iterable

import msgspec

from crawler.errors import StoreMismatchError
from crawler.store.contract import Content, Store, update

NAME = "store.json"


class Identity(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whose records a store holds; written by the first run, its fields by each that adds some.

    Attributes:
        source: Name of the source, or qualified name of a step 1 function.
        host: Host, and port where it is not the usual one, that the pages come from; "" where a
            step 1 function has not been seen to ask one yet.
        schema: Changes when the meaning of `info` changes.
        format: Format version of the blocks.
        fields: What `info` holds: types by name, as the source declares them; `FOUND` for what a
            step 1 function was seen to append. Empty where nobody has said.
    """

    source: str
    host: str
    schema: str
    format: int
    fields: dict[str, str] = {}


FOUND = "found"
"""The type of a field that nobody declared: an export finds it in the data."""


def claim_store(
    store: Store, identity: Identity, *, timeout: float, doubtful_host: str | None = None
) -> list[str]:
    """Write `store.json` where there is none; else make sure that it says the same.

    An older format is accepted, since its blocks are read. Fields that are new are added.

    Args:
        store: Whose.
        identity: Of the records that a run will add.
        timeout: Seconds.
        doubtful_host: A host that an earlier version wrote without knowing; it is amended.

    Returns:
        The fields that the records of the store do not have yet, where it is known what they have.

    Raises:
        StoreMismatchError: The store holds something else, in words that say what to do.
    """
    added: list[str] = []

    def claim(data: bytes | None) -> Content | None:
        added.clear()
        if data is None:
            return _content(identity)
        known = _decode(store, data)
        if known.host == doubtful_host:
            known = msgspec.structs.replace(known, host="")
        _compare(store.location, known, identity)
        if known.fields:
            added.extend(identity.fields.keys() - known.fields.keys())
        merged = msgspec.structs.replace(
            known, host=known.host or identity.host, fields=known.fields | identity.fields
        )
        return None if merged == _decode(store, data) else _content(merged)

    update(store, NAME, claim, timeout=timeout)
    return [name for name in identity.fields if name in added]


def claim_host(store: Store, host: str, *, timeout: float) -> None:
    """Note which host a step 1 function was seen to ask.

    Raises:
        StoreMismatchError: The store holds records of another one.
    """

    def claim(data: bytes | None) -> Content | None:
        known = None if data is None else _decode(store, data)
        if known is None or known.host == host:
            return None
        wanted = msgspec.structs.replace(known, host=host)
        _compare(store.location, known, wanted)
        return _content(wanted)

    update(store, NAME, claim, timeout=timeout)


def add_found_fields(store: Store, names: Iterable[str], *, timeout: float) -> list[str]:
    """Note what a step 1 function was seen to append.

    Returns:
        The names that are new to a store which knew others.
    """
    added: list[str] = []

    def add(data: bytes | None) -> Content | None:
        if data is None:
            return None  # somebody emptied the store
        known = _decode(store, data)
        fresh = {name: FOUND for name in names if name not in known.fields}
        added[:] = fresh if known.fields else ()
        changed = msgspec.structs.replace(known, fields=known.fields | fresh)
        return _content(changed) if fresh else None

    update(store, NAME, add, timeout=timeout)
    return added


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
        if has != wants and not (field == "host" and "" in (has, wants)):
            raise StoreMismatchError(
                f"{location} holds records of {field} {has!r}, this run would add some of "
                f"{wants!r}: name another store (CRAWLER_STORE or --store), or crawl with "
                f"{field} {has!r}"
            )
    for name, wants in wanted.fields.items():
        has = known.fields.get(name, wants)
        if has != wants and FOUND not in (has, wants):
            raise StoreMismatchError(
                f"{location} holds the field {name!r} as {has}, this run would add it as {wants}: "
                f"name another store, `rebuild` into one where raw bodies are kept, or leave it"
            )


def _content(identity: Identity) -> Content:
    text = msgspec.json.format(msgspec.json.encode(identity)) + b"\n"
    return Content(text, "application/json")
