"""A server on loopback that answers as Google Cloud's APIs do, as far as `deploy.sh` calls them.

The genuine gcloud talks to it: endpoint overrides name hosts that exist nowhere, and the proxy
setting sends all of them here, regional ones (`us-central1-run.gcp.test`) too. It keeps what is
made, so that a second deployment finds the first, and every request, so that a test can read them.
"""

import base64
import datetime
import functools
import hashlib
import http.server
import json
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, NamedTuple, Self
from urllib.parse import parse_qsl, quote, unquote, urlsplit

APIS = (
    "artifactregistry",
    "cloudbuild",
    "cloudresourcemanager",
    "cloudscheduler",
    "cloudtasks",
    "iam",
    "iamcredentials",
    "logging",
    "monitoring",
    "run",
    "secretmanager",
    "serviceusage",
)
DOMAIN = "gcp.test"
PROJECT_NUMBER = "123456789012"
SERVED = f"http://served.{DOMAIN}"
TRIAL = f"http://trial---served.{DOMAIN}"
"""Where the service answers, and its version on trial."""

READING = re.compile(
    r"GET |.*(:getIamPolicy|entries:list|/token|/sts|/introspect|:generateIdToken|served/)"
)
"""Requests that change nothing, though some of them are POST."""

STATEFUL = re.compile(
    r"run (?:deploy|services (?:update|delete))|storage rm|meta |.*--format=table"
)
"""Commands whose requests follow from what stands, so that they are run each time."""

Json = dict[str, Any]


class Request(NamedTuple):
    """One request as it came in: method, host of the API, path, query, JSON or bytes of the body."""

    method: str
    host: str
    path: str
    query: dict[str, str]
    body: Any


class NotThereError(Exception):
    """What was asked for was never made."""


class WrongStateError(Exception):
    """What was asked for does not fit the state: a job is paused once, and resumed once."""


class Tape(NamedTuple):
    """A gcloud command that was run before: its requests with the statuses answered, its output."""

    requests: list[tuple[Request, int]]
    output: str


class RecordingGcp:
    """A context manager that serves until it is left.

    Attributes:
        requests: All that came in, in order.
        resources: What was made, by path: the API's first name and the resource's own.
        policies: IAM bindings by resource: role to sorted members.
        objects: Objects in buckets, by `bucket/name`.
        trial: What a new version answers when it is asked for songs.
        tried: Requests that the new version got: their path, `Authorization` and body.
        deployer: Who deploys: a sign-in is played only for whom it was run.
        clock: The time that waiting steps go by, in seconds.
        ran: gcloud commands that were run, not played.
        waits: How long steps waited, in order.
    """

    tapes: ClassVar[dict[tuple[str, ...], Tape]] = {}
    stateful: ClassVar[re.Pattern[str]] = STATEFUL

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.resources: dict[str, Json] = {}
        self.policies: dict[str, dict[str, list[str]]] = {}
        self.objects: dict[str, bytes] = {}
        self.tried: list[tuple[str, str, Json]] = []
        self.regions = ["us-central1", "us-east1", "europe-west1"]
        self.trial: Json = {"found": 9, "missing": 1, "requests": 10, "stopped_by": "done"}
        self.deployer = "override"
        self.clock, self.waits, self.ran = 0.0, list[float](), list[str]()
        self._lock = threading.RLock()
        self._ticks, self._mark = 0, 0
        self._statuses: list[int] = []
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def environment(self, folder: Path) -> dict[str, str]:
        """Make what gcloud needs to talk to this server alone, logged in as a service account."""
        key = _service_account_key(f"{self.url}/token")
        (folder / "gcloud").mkdir(parents=True, exist_ok=True)
        (folder / "key.json").write_text(json.dumps(key))
        overrides = {f"http://{api}.{DOMAIN}/": api for api in APIS}
        overrides[f"http://storage.{DOMAIN}/storage/v1/"] = "storage"
        return {
            **{f"CLOUDSDK_API_ENDPOINT_OVERRIDES_{a.upper()}": u for u, a in overrides.items()},
            "CLOUDSDK_CONFIG": str(folder / "gcloud"),
            "CLOUDSDK_AUTH_CREDENTIAL_FILE_OVERRIDE": str(folder / "key.json"),
            "CLOUDSDK_AUTH_TOKEN_HOST": f"{self.url}/token",
            "CLOUDSDK_PROXY_TYPE": "http",
            "CLOUDSDK_PROXY_ADDRESS": "127.0.0.1",
            "CLOUDSDK_PROXY_PORT": str(self._server.server_port),
            "HTTP_PROXY": self.url,
            "RECORDER": self.url,
            "CLOUDSDK_CORE_CHECK_GCE_METADATA": "false",
            "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "true",
            "CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK": "true",
            "CLOUDSDK_CORE_DISABLE_FILE_LOGGING": "true",
        }

    def state(self) -> str:
        """Write down all that stands, without times, so that two states can be compared."""
        times = re.compile(
            r'"(createTime|updateTime|creationTimestamp|lastTransitionTime)": "[^"]*"'
        )
        return times.sub("", json.dumps([self.resources, self.policies], indent=1, sort_keys=True))

    def copy(self) -> "RecordingGcp":
        """Make another server at which the same stands."""
        other = RecordingGcp()
        other.resources, other.policies = json.loads(json.dumps([self.resources, self.policies]))
        other.objects, other._ticks = dict(self.objects), self._ticks
        return other

    def changes(self) -> list[Request]:
        """List the requests that were to change something."""
        return [r for r in self.requests if not READING.match(f"{r.method} {r.host}{r.path}")]

    def answer(self, request: Request, headers: Mapping[str, str]) -> tuple[int, Any]:
        """Answer one request with a status and JSON, or bytes."""
        with self._lock:
            self.requests.append(request)
            status, body = self._answered(request, headers)
            self._statuses.append(status)
            return status, body

    def _answered(self, request: Request, headers: Mapping[str, str]) -> tuple[int, Any]:
        try:
            return self._route(request, headers)
        except NotThereError as error:
            return refused(404, "NOT_FOUND", f"{error} not found")
        except WrongStateError as error:
            return refused(400, "FAILED_PRECONDITION", str(error))

    def _route(self, request: Request, headers: Mapping[str, str]) -> tuple[int, Any]:
        key = f"{request.method} {request.host}{request.path}"
        for pattern, answer in _ROUTES:
            match = re.fullmatch(pattern, key)
            if match:
                found = answer(self, request, *match.groups())
                return (200, found) if not isinstance(found, tuple) else found
        if request.host.endswith("served"):
            return self._serve(request, headers.get("Authorization", ""))
        return 501, {"error": {"code": 501, "message": f"not recorded: {key}"}}

    def _serve(self, request: Request, authorization: str) -> tuple[int, Any]:
        """Answer for the function, which takes a token for its own address, or a person's."""
        scheme, _, token = authorization.partition(" ")
        if scheme != "Bearer" or audience_of(token) not in (SERVED, PERSON):
            return 401, b"<html>401 Unauthorized</html>"
        self.tried.append((request.host, authorization, request.body))
        return 200, self.trial

    def harness(self, what: str, body: Json) -> Any:
        """Answer a step under test: the clock, and gcloud commands that were run before."""
        with self._lock:
            if what == "clock":
                if body["seconds"]:
                    self.waits.append(body["seconds"])
                self.clock += body["seconds"]
                return self.clock
            arguments = tuple(body["arguments"])
            key = (self.deployer, *arguments) if arguments[0] == "auth" else arguments
            if what == "play":
                tape = self.tapes.get(key)
                return None if tape is None else self._play(arguments, tape)
            if what == "begin":
                self.ran.append(" ".join(arguments))
                self._mark = len(self.requests)
            if what == "end" and not self.stateful.match(" ".join(arguments)):
                made = zip(self.requests[self._mark :], self._statuses[self._mark :], strict=True)
                tape = Tape(list(made), body["output"])
                if body["code"] == 0 or (tape.requests[-1:] and tape.requests[-1][1] == 404):
                    self.tapes.setdefault(key, tape)
            return None

    def _play(self, arguments: Sequence[str], tape: Tape) -> tuple[int, str, str, list[Any]]:
        """Send the requests of a command again, until one is refused that was not."""
        exchanges, found, answered = [], Json(), 200
        for request, status in tape.requests:
            if request.path.endswith("/token"):
                continue
            if request.path.endswith(("setIamPolicy", "/iam")) and isinstance(request.body, dict):
                request = _with_binding(request, found, arguments)  # noqa: PLW2901 - of now
            answered, body = self.answer(request, {})
            text = body.decode(errors="replace") if isinstance(body, bytes) else json.dumps(body)
            exchanges.append((f"{request.method} {request.path}", answered, text))
            if answered >= 400 and answered != status:
                return 1, "", f"ERROR: {text}", exchanges
            found = body if isinstance(body, dict) else {}
        if answered >= 400:
            return 1, "", "ERROR: as before", exchanges
        return 0, _printed(arguments, found, tape.output), "", exchanges

    # What the routes share.

    def now(self) -> str:
        """Tell a time that goes on with every call."""
        self._ticks += 1
        start = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
        return (start + datetime.timedelta(seconds=self._ticks)).strftime("%Y-%m-%dT%H:%M:%SZ")

    def make(self, path: str, resource: Json) -> Json:
        """Keep a new resource under its path."""
        self.resources[path] = resource
        return resource

    def get(self, path: str) -> Json:
        """Find what was made."""
        if path not in self.resources:
            raise NotThereError(path)
        return self.resources[path]

    def under(self, prefix: str) -> list[Json]:
        """List what was made below a path, not deeper."""
        rest = re.compile(re.escape(prefix) + r"/[^/]+")
        return [value for path, value in self.resources.items() if rest.fullmatch(path)]


def _handler(recorder: RecordingGcp) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm, wbufsize = True, -1  # or each answer waits 40 ms for the client

        def handle_one_request(self) -> None:
            """Take a head in at once: through a proxy a client keeps its body back until then."""
            if hasattr(socket, "TCP_QUICKACK"):  # in Linux, where it would take 40 ms else
                self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            super().handle_one_request()

        def _serve(self) -> None:
            parts = urlsplit(self.path)
            host = (parts.hostname or "").removesuffix(f".{DOMAIN}")
            path = parts.path
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if path.startswith("/harness/"):
                self._send(200, recorder.harness(path.rpartition("/")[2], json.loads(body)))
                return
            request = Request(
                self.command, host, path, dict(parse_qsl(parts.query)), _decoded(body, path)
            )
            self._send(*recorder.answer(request, dict(self.headers)))

        def _send(self, status: int, answer: Any) -> None:
            data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            kind = "application/octet-stream" if isinstance(answer, bytes) else "application/json"
            self.send_header("Content-Type", f"{kind}; charset=UTF-8")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815 - the library's names

        def log_message(self, *_: object) -> None:
            """Keep the tests' output quiet."""

    return Handler


def refused(status: int, code: str, message: str, reason: str = "") -> tuple[int, Json]:
    """Make an error as Google's APIs answer it."""
    info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason}
    details = {"details": [info]} if reason else {}
    return status, {"error": {"code": status, "message": message, "status": code, **details}}


def audience_of(token: str) -> str:
    """Read for whom an identity token is; empty where it is none."""
    try:
        part = token.split(".")[1]
        return str(json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))["aud"])
    except (IndexError, ValueError, KeyError):
        return ""


def identity(audience: str) -> str:
    """Make an identity token for somebody's use of one service."""
    claims = {"aud": audience, "exp": 9_999_999_999, "email": "somebody@example.org"}
    return f"e30.{base64.urlsafe_b64encode(json.dumps(claims).encode()).decode()}.e30"


def _with_binding(request: Request, policy: Json, arguments: Sequence[str]) -> Request:
    """Change a policy as a command does: by what stands now, not when it was recorded."""
    options = dict(word.split("=", 1) for word in arguments if "=" in word)
    role, member = options["--role"], options["--member"]
    bindings = {b["role"]: set(b["members"]) for b in policy.get("bindings", [])}
    bindings.setdefault(role, set()).add(member)
    if "remove-iam-policy-binding" in arguments:
        bindings[role].discard(member)
    made = [{"role": role, "members": sorted(m)} for role, m in bindings.items() if m]
    if "policy" in request.body:
        policy = {**request.body["policy"], "bindings": made}
        return request._replace(body={**request.body, "policy": policy})
    return request._replace(body={**request.body, "bindings": made})


def _printed(arguments: Sequence[str], found: Json, recorded: str) -> str:
    """Print what a command finds now."""
    form = next((word[9:] for word in arguments if word.startswith("--format=")), "")
    if form == "json":
        return json.dumps(found)
    if "get-iam-policy" in arguments:
        bindings = found.get("bindings", [])
        return "".join(f"{member}\n" for each in bindings for member in each["members"])
    if match := re.fullmatch(r"value\((\w+)\)", form):
        return f"{found.get(match[1], '')}\n"
    return recorded


def _decoded(body: bytes, path: str) -> Any:
    try:
        return json.loads(body) if body and not path.startswith("/upload/") else body
    except ValueError:
        return body


@functools.cache
def _private_key() -> str:
    """Make up a key; it takes a tenth of a second, and nobody minds whose it is."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return key.decode()


def _service_account_key(token_uri: str) -> Json:
    """Make the file with which gcloud logs in at this server as a service account."""
    return {
        "type": "service_account",
        "project_id": "my-project",
        "private_key_id": "1",
        "private_key": _private_key(),
        "client_email": "deployer@my-project.iam.gserviceaccount.com",
        "client_id": "1",
        "token_uri": token_uri,
    }


# The routes: `METHOD host/path`, and what answers. Groups of the pattern come as arguments.


POOL = "iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p"
FEDERATED = f"principal://{POOL}/subject/ci"
"""Somebody of another provider, as Google knows them."""

PERSON = "32555940559.apps.googleusercontent.com"
"""The audience of a person's identity token: gcloud's own client, which every service takes."""


def _token(_: RecordingGcp, request: Request) -> Json:
    """Exchange what proves who somebody is: a signed assertion, or a person's refresh token."""
    body = request.body.decode() if isinstance(request.body, bytes) else ""
    assertion = dict(parse_qsl(body)).get("assertion", "")
    audience = _target_of(assertion) if assertion else PERSON
    return {
        "access_token": "access",
        "expires_in": 3600,
        "token_type": "Bearer",
        "id_token": identity(audience),
    }


def _target_of(assertion: str) -> str:
    part = assertion.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return str(claims.get("target_audience", ""))


def _exchange(_: RecordingGcp, request: Request) -> Json:
    """Exchange a token of another provider for one of ours."""
    kind = "urn:ietf:params:oauth:token-type:access_token"
    return {
        "access_token": "federated",
        "issued_token_type": kind,
        "token_type": "Bearer",
        "expires_in": 3600,
    }


def _impersonate(_: RecordingGcp, request: Request, account: str, what: str) -> Json:
    if what == "generateIdToken":
        return {"token": identity(request.body["audience"])}
    return {"accessToken": "impersonated", "expireTime": "2030-01-01T00:00:00Z"}


def _places(gcp: RecordingGcp, request: Request, name: str) -> Json:
    return {"locations": [{"locationId": r, "name": f"{name}/locations/{r}"} for r in gcp.regions]}


def _done(*_: Any) -> Json:
    return {"name": "operations/acat.p2-1-1", "done": True, "response": {}}


def _enabled(_: RecordingGcp, request: Request, name: str) -> Json:
    return {"name": name, "state": "ENABLED"}


def _project(_: RecordingGcp, request: Request, name: str) -> Json:
    return {"projectId": name, "projectNumber": PROJECT_NUMBER, "lifecycleState": "ACTIVE"}


def _get_policy(gcp: RecordingGcp, request: Request, name: str) -> Json:
    bindings = gcp.policies.get(f"{_api(request)}/{name}", {})
    return {
        "version": 1,
        "etag": "ACAB",
        "bindings": [{"role": role, "members": m} for role, m in bindings.items()],
    }


def _set_policy(gcp: RecordingGcp, request: Request, name: str) -> Json:
    policy: Json = request.body.get("policy", request.body)
    bindings = {b["role"]: sorted(b["members"]) for b in policy.get("bindings", [])}
    gcp.policies[f"{_api(request)}/{name}"] = bindings
    return policy


def _api(request: Request) -> str:
    return request.host.rpartition("-")[2]


def _make_account(gcp: RecordingGcp, request: Request, project: str) -> Any:
    email = f"{request.body['accountId']}@{project}.iam.gserviceaccount.com"
    path = f"iam/projects/{project}/serviceAccounts/{email}"
    if path in gcp.resources:
        return refused(409, "ALREADY_EXISTS", f"{email} already exists")
    account = {"name": path[4:], "email": email, "projectId": project}
    return gcp.make(path, account | request.body.get("serviceAccount", {}))


def _get(gcp: RecordingGcp, request: Request, name: str) -> Json:
    return gcp.get(f"{_api(request)}/{name}")


def _get_account(gcp: RecordingGcp, request: Request, email: str) -> Json:
    return gcp.get(f"iam/projects/my-project/serviceAccounts/{email}")


def _delete_account(gcp: RecordingGcp, request: Request, email: str) -> Json:
    del gcp.resources[f"iam/projects/my-project/serviceAccounts/{email}"]
    return {}


def _delete(gcp: RecordingGcp, request: Request, name: str) -> Json:
    _get(gcp, request, name)
    for path in [
        path for path in gcp.resources if f"{path}/".startswith(f"{_api(request)}/{name}/")
    ]:
        del gcp.resources[path]
    gcp.policies.pop(f"{_api(request)}/{name}", None)
    return {}


def _patch(gcp: RecordingGcp, request: Request, name: str) -> Json:
    return _get(gcp, request, name) | {}


def _listing(plural: str) -> Callable[..., Json]:
    def answer(gcp: RecordingGcp, request: Request, name: str) -> Json:
        return {plural: gcp.under(f"{_api(request)}/{name}/{plural}")}

    return answer


def _make_numbered(plural: str) -> Callable[..., Json]:
    """Make a resource whose name the API chooses."""

    def answer(gcp: RecordingGcp, request: Request, name: str) -> Json:
        number = 1 + sum(f"/{plural}/" in path for path in gcp.resources)
        path = f"{name}/{plural}/{number}"
        return gcp.make(f"{_api(request)}/{path}", {**request.body, "name": path})

    return answer


def _make_named(gcp: RecordingGcp, request: Request, name: str, plural: str) -> Json:
    """Make a resource that brings its name along: whole, or as the last part of a path."""
    own = request.body["name"].rpartition("/")[2]
    path = f"{_api(request)}/{name}/{plural}/{own}"
    return gcp.make(path, {"state": "ENABLED" if plural == "jobs" else "RUNNING", **request.body})


def _change(gcp: RecordingGcp, request: Request, name: str) -> Json:
    resource = _get(gcp, request, name)
    resource |= {k: v for k, v in request.body.items() if k != "name"}
    return resource


def _set_state(gcp: RecordingGcp, request: Request, name: str, verb: str) -> Json:
    resource = _get(gcp, request, name)
    running = "ENABLED" if "/jobs/" in name else "RUNNING"
    wanted = {"pause": running, "resume": "PAUSED"}.get(verb)
    if "/jobs/" in name and resource["state"] != wanted:
        raise WrongStateError(f"{name} is {resource['state']}")
    resource["state"] = {"pause": "PAUSED", "resume": running, "disable": "DISABLED"}[verb]
    return resource


# Secret Manager.


def _make_secret(gcp: RecordingGcp, request: Request, project: str) -> Json:
    name = f"projects/{PROJECT_NUMBER}/secrets/{request.query['secretId']}"
    path = f"secretmanager/{project}/secrets/{request.query['secretId']}"
    return gcp.make(path, {**request.body, "name": name, "createTime": gcp.now()})


def _add_version(gcp: RecordingGcp, request: Request, name: str) -> Json:
    _get(gcp, request, name)
    number = 1 + len(gcp.under(f"secretmanager/{name}/versions"))
    version = {
        "name": f"{name}/versions/{number}",
        "state": "ENABLED",
        "createTime": gcp.now(),
        "clientSpecifiedPayloadChecksum": True,
        "data": request.body["payload"]["data"],
    }
    return gcp.make(f"secretmanager/{name}/versions/{number}", version)


# Cloud Storage.


def _get_bucket(gcp: RecordingGcp, request: Request, name: str) -> Json:
    return gcp.get(f"storage/b/{name}")


def _make_bucket(gcp: RecordingGcp, request: Request) -> Json:
    number = {"projectNumber": PROJECT_NUMBER, "metageneration": "1", "kind": "storage#bucket"}
    name = request.body["name"]
    return gcp.make(f"storage/b/{name}", {**request.body, **number, "id": name})


def _list_buckets(gcp: RecordingGcp, request: Request) -> Json:
    return {"kind": "storage#buckets", "items": gcp.under("storage/b")}


def _delete_bucket(gcp: RecordingGcp, request: Request, name: str) -> Json:
    del gcp.resources[f"storage/b/{name}"]
    return {}


def _layout(gcp: RecordingGcp, request: Request, name: str) -> Json:
    return {"kind": "storage#storageLayout", "bucket": name, "location": "us-central1"}


def _object(name: str, bucket: str, data: bytes) -> Json:
    return {
        "kind": "storage#object",
        "name": name,
        "bucket": bucket,
        "generation": "1",
        "metageneration": "1",
        "size": str(len(data)),
        "mediaLink": f"http://storage.{DOMAIN}/storage/v1/b/{bucket}/o/{quote(name, '')}?alt=media",
        "md5Hash": base64.b64encode(hashlib.md5(data).digest()).decode(),
    }


def _upload(gcp: RecordingGcp, request: Request, bucket: str) -> Any:
    if request.query.get("uploadType") == "media":
        name, data = request.query["name"], request.body
        there = "1" if f"{bucket}/{name}" in gcp.objects else "0"
        if request.query["ifGenerationMatch"] != there:
            return refused(412, "FAILED_PRECONDITION", "conditionNotMet")
    else:
        head, data = _multipart(request.body)
        name = request.query.get("name") or json.loads(head)["name"]
    gcp.objects[f"{bucket}/{name}"] = data
    return _object(name, bucket, data)


def _multipart(body: bytes) -> tuple[bytes, bytes]:
    """Part an upload in one request into its JSON and its data."""
    match = re.match(rb"\s*(--[^\r\n]+)", body)
    assert match, "an upload begins with its boundary"
    parts = body.split(match[1])[1:3]
    contents = [re.split(rb"\r?\n\r?\n", part, maxsplit=1)[1] for part in parts]
    return contents[0].strip(), contents[1].removesuffix(b"\n").removesuffix(b"\r")


def _get_object(gcp: RecordingGcp, request: Request, bucket: str, name: str) -> Any:
    data = gcp.objects.get(f"{bucket}/{unquote(name)}")
    if data is None:
        raise NotThereError(f"gs://{bucket}/{unquote(name)}")
    return data if request.query.get("alt") == "media" else _object(unquote(name), bucket, data)


def _list_objects(gcp: RecordingGcp, request: Request, bucket: str) -> Json:
    prefix = f"{bucket}/{request.query.get('prefix', '')}"
    items = [
        _object(path.partition("/")[2], bucket, data)
        for path, data in gcp.objects.items()
        if path.startswith(prefix)
    ]
    return {"kind": "storage#objects", "items": items}


def _delete_object(gcp: RecordingGcp, request: Request, bucket: str, name: str) -> Json:
    gcp.objects.pop(f"{bucket}/{unquote(name)}", None)
    return {}


# Artifact Registry, Cloud Build and Cloud Run.


def _make_repository(gcp: RecordingGcp, request: Request, name: str) -> Json:
    path = f"{name}/repositories/{request.query['repositoryId']}"
    made = gcp.make(f"artifactregistry/{path}", {**request.body, "name": path})
    operation = {"name": f"{name}/operations/repository-1", "done": True, "response": made}
    return gcp.make(f"artifactregistry/{operation['name']}", operation)


def _build(gcp: RecordingGcp, request: Request, name: str) -> Json:
    image = request.body["imageUri"]
    built = {
        "id": "build-1",
        "projectId": name.split("/")[1],
        "name": f"{name}/builds/build-1",
        "status": "SUCCESS",
        "logUrl": "http://logs.gcp.test",
        "results": {"images": [{"name": image, "digest": f"sha256:{'0' * 64}"}]},
    }
    operation = {
        "name": f"{name}/operations/build-1",
        "done": True,
        "metadata": {
            "@type": "type.googleapis.com/google.devtools.cloudbuild.v1.BuildOperationMetadata",
            "build": built,
        },
        "response": {"@type": "type.googleapis.com/google.devtools.cloudbuild.v1.Build", **built},
    }
    gcp.make(f"cloudbuild/{name}/operations/build-1", operation)
    return {"buildOperation": operation, "baseImageUri": "python313"}


def _ready(gcp: RecordingGcp, kinds: tuple[str, ...]) -> list[Json]:
    return [{"type": kind, "status": "True", "lastTransitionTime": gcp.now()} for kind in kinds]


def _put_service(gcp: RecordingGcp, request: Request, project: str, name: str = "") -> Json:
    """Make a service or replace it: a new template is a new revision; then spread the traffic."""
    service: Json = request.body
    name = name or service["metadata"]["name"]
    path = f"run/namespaces/{project}/services/{name}"
    before = gcp.resources.get(path)
    count = before["metadata"]["generation"] + 1 if before else 1
    revision = _revision(gcp, project, service, before, count)
    service["metadata"] |= {
        "generation": count,
        "resourceVersion": str(count),
        "creationTimestamp": gcp.now(),
        "uid": "u",
        "selfLink": f"/apis/serving.knative.dev/v1/namespaces/{project}/services/{name}",
    }
    traffic = service["spec"].get("traffic") or [{"latestRevision": True, "percent": 100}]
    service["spec"]["traffic"] = traffic
    service["status"] = {
        "observedGeneration": count,
        "url": SERVED,
        "latestCreatedRevisionName": revision,
        "latestReadyRevisionName": revision,
        "conditions": _ready(gcp, ("Ready", "ConfigurationsReady", "RoutesReady")),
        "traffic": [_routed(gcp, target, revision) for target in traffic],
    }
    return gcp.make(path, service)


def _routed(gcp: RecordingGcp, target: Json, latest: str) -> Json:
    routed = {**target, "revisionName": target.get("revisionName") or latest}
    if "tag" in target:
        routed["url"] = SERVED.replace("//", f"//{target['tag']}---")
    return routed


def _revision(
    gcp: RecordingGcp, project: str, service: Json, before: Json | None, count: int
) -> str:
    template = service["spec"]["template"]
    if before and before["spec"]["template"] == template:
        return str(before["status"]["latestReadyRevisionName"])
    name = template["metadata"].get("name") or f"{service['metadata']['name']}-{count:05d}-abc"
    revision = {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Revision",
        "metadata": {
            **template["metadata"],
            "name": name,
            "namespace": PROJECT_NUMBER,
            "creationTimestamp": gcp.now(),
        },
        "spec": template["spec"],
        "status": {"conditions": _ready(gcp, ("Ready",))},
    }
    gcp.make(f"run/namespaces/{project}/revisions/{name}", revision)
    return str(name)


def _delete_service(gcp: RecordingGcp, request: Request, project: str, name: str) -> Json:
    gcp.get(f"run/namespaces/{project}/services/{name}")
    for path in [p for p in gcp.resources if p.startswith(f"run/namespaces/{project}/")]:
        del gcp.resources[path]
    gcp.policies = {k: v for k, v in gcp.policies.items() if not k.startswith("run/")}
    return {"kind": "Status", "status": "Success"}


def _routes() -> Iterator[tuple[str, Callable[..., Any]]]:
    knative = r"[\w-]+-run/apis/serving\.knative\.dev/v1"
    yield r"POST [\w.]*/token", _token
    yield r"POST [\w.]*/sts", _exchange
    yield r"POST [\w.]*/introspect", lambda *_: {"active": True, "username": FEDERATED}
    yield r"POST iamcredentials/v1/projects/-/serviceAccounts/([^/:]+):(\w+)", _impersonate
    yield (
        r"GET (?:run|cloudbuild|cloudscheduler|cloudtasks)/v\d/(projects/[^/]+)/locations",
        _places,
    )
    yield r"POST serviceusage/v1/.*:batchEnable", _done
    yield r"GET serviceusage/v1(?:beta1)?/(projects/[^/]+/services/[^/:]+)", _enabled
    yield r"POST iam/v1/projects/([^/]+)/serviceAccounts", _make_account
    yield r"(?:GET|POST) [\w-]+/v\w+/([^:]+):getIamPolicy", _get_policy
    yield r"POST [\w-]+/v\w+/([^:]+):setIamPolicy", _set_policy
    yield r"GET iam/v1/projects/[^/]+/serviceAccounts/([^/:]+)", _get_account
    yield r"DELETE iam/v1/projects/[^/]+/serviceAccounts/([^/:]+)", _delete_account
    yield r"GET cloudresourcemanager/v\w+/projects/([^/:]+)", _project
    yield r"GET storage/storage/v1/b/([^/]+)/iam", _get_policy
    yield r"PUT storage/storage/v1/b/([^/]+)/iam", _set_policy
    yield r"GET storage/storage/v1/b/([^/]+)", _get_bucket
    yield r"GET storage/storage/v1/b/([^/]+)/storageLayout", _layout
    yield r"GET storage/storage/v1/b/[^/]+/(?:managedFolders|folders)", lambda *_: {"items": []}
    yield r"DELETE storage/storage/v1/b/([^/]+)", _delete_bucket
    yield r"POST storage/storage/v1/b", _make_bucket
    yield r"GET storage/storage/v1/b", _list_buckets
    yield r"GET storage/(?:download/)?storage/v1/b/([^/]+)/o/([^/]+)", _get_object
    yield r"DELETE storage/storage/v1/b/([^/]+)/o/([^/]+)", _delete_object
    yield r"GET storage/storage/v1/b/([^/]+)/o", _list_objects
    yield r"POST storage/(?:resumable/)?upload/storage/v1/b/([^/]+)/o", _upload
    yield r"POST secretmanager/v1/(projects/[^/]+)/secrets", _make_secret
    yield r"POST secretmanager/v1/(projects/[^/]+/secrets/[^/]+):addVersion", _add_version
    yield r"GET secretmanager/v1/(projects/[^/]+/secrets/[^/]+)/versions", _listing("versions")
    yield r"POST \w+/v\w+/(projects/.+):(pause|resume|disable)", _set_state
    yield (
        r"POST artifactregistry/v1/(projects/[^/]+/locations/[^/]+)/repositories",
        _make_repository,
    )
    yield r"POST [\w-]+-run/v2/(projects/[^/]+/locations/[^/]+)/builds:submit", _build
    yield rf"POST {knative}/namespaces/([^/]+)/services", _put_service
    yield rf"PUT {knative}/namespaces/([^/]+)/services/([^/]+)", _put_service
    yield rf"DELETE {knative}/namespaces/([^/]+)/services/([^/]+)", _delete_service
    yield rf"GET {knative}/(namespaces/[^/]+/(?:services|revisions)/[^/]+)", _get
    yield r"POST \w+/v\w+/(projects/[^/]+/locations/[^/]+)/(jobs|queues)", _make_named
    yield r"GET logging/v2/(projects/[^/]+)/metrics", _listing("metrics")
    yield r"PUT logging/v2/(projects/[^/]+)/(metrics)/[^/]+", _make_named
    yield r"POST monitoring/v3/(projects/[^/]+)/alertPolicies", _make_numbered("alertPolicies")
    yield r"GET monitoring/v3/(projects/[^/]+)/alertPolicies", _listing("alertPolicies")
    channels = "notificationChannels"
    yield rf"POST monitoring/v3/(projects/[^/]+)/{channels}", _make_numbered(channels)
    yield rf"GET monitoring/v3/(projects/[^/]+)/{channels}", _listing(channels)
    yield r"POST monitoring/v1/(projects/[^/]+)/dashboards", _make_numbered("dashboards")
    yield r"GET monitoring/v1/(projects/[^/]+)/dashboards", _listing("dashboards")
    yield r"POST logging/v2/entries:list", lambda *_: {"entries": []}
    yield r"GET [\w-]+/v\w+/(projects/.+)", _get
    yield r"(?:PATCH|PUT) [\w-]+/v\w+/(projects/.+)", _change
    yield r"DELETE [\w-]+/v\w+/(projects/.+)", _delete


_ROUTES = list(_routes())


def gcloud_is_here() -> bool:
    """Whether there is a gcloud on this machine."""
    return any(Path(p, "gcloud").exists() for p in os.environ.get("PATH", "").split(os.pathsep))
