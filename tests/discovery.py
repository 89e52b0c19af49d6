"""Requests checked against Google's discovery documents: path, method, parameters, types, enums.

The documents ship in google-api-python-client; nothing is asked of Google.
"""

import functools
import json
import re
from collections.abc import Iterator
from importlib import resources
from typing import Any, NamedTuple

from tests.recording_gcp import Json, Request

NO_API = ("token", "sts", "served", "")
"""Hosts and paths that no document describes: sign-in, and the deployed function."""


LAX = (".spec.template.metadata.namespace",)
"""Fields that are required by their text alone: a revision is in its service's namespace."""


class Method(NamedTuple):
    """One method of an API: its path as a pattern, what it takes, where its schemas are."""

    id: str
    verb: str
    path: re.Pattern[str]
    parameters: Json
    schema: str | None
    document: Json


def problems(request: Request) -> list[str]:
    """List what Google would not understand of a request; empty where all is known."""
    name = f"{request.method} {request.host}{request.path}"
    if request.host.endswith("served") or request.path.rpartition("/")[2] in NO_API:
        return []
    api = request.host.rpartition("-")[2]
    found = [
        m for m in _methods(api) if m.verb == request.method and m.path.fullmatch(request.path)
    ]
    if not found:
        return [f"{name}: no method of {api} has this path"]
    tried = [list(_misfits(method, request)) for method in found]
    return [f"{name} ({found[0].id}): {text}" for text in min(tried, key=len)]


def _misfits(method: Method, request: Request) -> Iterator[str]:
    known = {k: v for k, v in method.parameters.items() if v.get("location") != "path"}
    known |= method.document["parameters"]
    for key, value in request.query.items():
        if key not in known:
            yield f"parameter {key} is unknown"
        else:
            yield from _value_misfits(known[key], value, key)
    for key, about in method.parameters.items():
        if about.get("required") and about["location"] == "query" and key not in request.query:
            yield f"parameter {key} is missing"
    if isinstance(request.body, dict):
        if method.schema is None:
            yield "a body where none is taken"
        else:
            is_partial = request.method == "PATCH"
            schemas = method.document["schemas"]
            yield from _body_misfits(schemas, {"$ref": method.schema}, request.body, "", is_partial)


def _value_misfits(about: Json, value: str, where: str) -> Iterator[str]:
    """Check a parameter, which is text whatever its type."""
    kinds = {"integer": r"-?\d+", "boolean": "true|false|True|False", "number": r"-?[\d.]+"}
    if not re.fullmatch(kinds.get(about.get("type", ""), ".*"), value, re.DOTALL):
        yield f"{where}={value!r} is no {about['type']}"
    if "enum" in about and value not in about["enum"]:
        yield f"{where}={value!r} is none of {about['enum']}"


def _body_misfits(
    schemas: Json, about: Json, value: Any, where: str, is_partial: bool
) -> Iterator[str]:
    """Check a value against a schema, and what is inside against its own."""
    about = schemas[about["$ref"]] if "$ref" in about else about
    kinds: dict[str, Any] = {
        "string": str,
        "boolean": bool,
        "integer": int,
        "number": (int, float),
        "array": list,
        "object": dict,
    }
    kind = about.get("type", "any")
    is_long = kind == "string" and about.get("format", "").endswith("int64")
    if kind in kinds and not isinstance(value, (str, int) if is_long else kinds[kind]):
        yield f"{where or 'the body'} is {type(value).__name__}, not {kind}"
        return
    if "enum" in about and value not in about["enum"]:
        yield f"{where}={value!r} is none of {about['enum']}"
    if isinstance(value, list):
        for number, item in enumerate(value):
            inside = f"{where}[{number}]"
            yield from _body_misfits(schemas, about["items"], item, inside, is_partial)
    if isinstance(value, dict) and kind == "object":
        fields = about.get("properties", {})
        for key, item in value.items():
            schema = fields.get(key) or about.get("additionalProperties")
            if schema is None:
                yield f"{where}.{key} is unknown"
            else:
                yield from _body_misfits(schemas, schema, item, f"{where}.{key}", is_partial)
        for key, field in fields.items():
            is_required = re.match(
                r"Required\b(?!\.? (?:when|if|for|only))", field.get("description", "")
            )
            if is_required and not is_partial and key not in value and f"{where}.{key}" not in LAX:
                yield f"{where}.{key} is required"


@functools.cache
def _methods(api: str) -> tuple[Method, ...]:
    folder = resources.files("googleapiclient") / "discovery_cache/documents"
    names = [file for file in folder.iterdir() if re.fullmatch(rf"{api}\.v\d\w*\.json", file.name)]
    documents = [json.loads(file.read_text(encoding="utf-8")) for file in names]
    return tuple(method for document in documents for method in _walk(document, document))


def _walk(document: Json, level: Json) -> Iterator[Method]:
    for about in level.get("methods", {}).values():
        parameters, schema = about.get("parameters", {}), about.get("request", {}).get("$ref")
        paths = [f"/{document['servicePath']}{about['path']}"]
        paths += [p["path"] for p in about.get("mediaUpload", {}).get("protocols", {}).values()]
        if about.get("supportsMediaDownload"):
            paths.append(f"/download{paths[0]}")
        for path in paths:
            pattern = re.compile(_pattern(path, parameters))
            yield Method(about["id"], about["httpMethod"], pattern, parameters, schema, document)
    for inner in level.get("resources", {}).values():
        yield from _walk(document, inner)


def _pattern(path: str, parameters: Json) -> str:
    """Turn a path template into a pattern: `{+name}` is several segments, `{name}` one."""
    parts = re.split(r"(\{\+?\w+\})", path)
    return "".join(
        parameters[part.strip("{+}")].get("pattern", "^[^/:]+$")[1:-1]
        if part.startswith("{")
        else re.escape(part)
        for part in parts
    )
