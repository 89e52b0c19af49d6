"""A recording server that answers as Google does on a first day: late, inconsistent and refusing.

Each refusal is given on the call where the platform gives it (public reports: terraform-provider-
google 11102, deploy-cloudrun, mcp-security 132, IAM's page on access change propagation). How long
one lasts is a number of seconds on the server's own clock, which waiting steps move on; `FOREVER`
never passes. Rights follow from the bindings that were made, not from what the test expects.
"""

import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from tests.recording_gcp import SERVED, Json, RecordingGcp, Request, Tape, audience_of, refused

FOREVER = float("inf")

REQUEST_SECONDS = 0.5
"""The clock goes on by so much with each request."""


class Lags(NamedTuple):
    """How long what was done is not known yet, in seconds.

    Attributes:
        api: From enabling an API until it answers.
        account: From making an account until it can be bound.
        role: From a binding until it takes effect.
        metric: From making a metric until alerts may look at it.
        listing: From adding a version until a listing shows it.
        address: From deploying until the service's address answers.
        busy: Until calls are no longer answered 409, 429 and 503 now and then.
    """

    api: float = 0
    account: float = 0
    role: float = 0
    metric: float = 0
    listing: float = 0
    address: float = 0
    busy: float = 0


WORST = Lags(api=300, account=420, role=600, metric=600, listing=FOREVER, address=120, busy=300)
"""The longest that is documented or was reported."""


def random_lags(chance: random.Random) -> Lags:
    """Draw lags up to the worst; each is short as often as long."""
    drawn = [chance.choice((0.0, chance.uniform(0, 1) ** 2, 1.0)) for _ in Lags._fields]
    finite = [min(worst, 7200.0) for worst in WORST]
    return Lags(*(share * worst for share, worst in zip(drawn, finite, strict=True)))


class HostileGcp(RecordingGcp):
    """A recording server on a first day.

    Attributes:
        lags: How long things take; may be changed between two runs.
        refuses: Requests (`METHOD host/path`, a pattern) that are answered with an error for ever.
        names: The accounts that run the function and build it, without their domain.
        late: Roles that take effect later than others, by so many seconds.
    """

    stateful: ClassVar[re.Pattern[str]] = re.compile(
        r"run deploy .*--no-traffic|run services (?:update|delete)|storage rm|.*--format=table"
    )

    def __init__(self, lags: Lags, seed: int = 0) -> None:
        super().__init__()
        self.lags, self.refuses = lags, dict[str, tuple[int, Json]]()
        self.late = dict[str, float]()
        self.names = {"run": "song-crawler-run", "build": "song-crawler-build"}
        self._chance = random.Random(seed)
        self.enabled_at: float | None = None
        self.made = dict[str, float]()
        self.bound = dict[tuple[str, str], float]()

    def _answered(self, request: Request, headers: Mapping[str, str]) -> tuple[int, Any]:
        self.clock += REQUEST_SECONDS
        key = f"{request.method} {request.host}{request.path}"
        found = self._refusal(key, request, headers)
        if found is not None:
            return found
        status, body = super()._answered(request, headers)
        if status < 400:
            self._remember(key, request)
            body = self._lagging(key, body)
        return status, body

    def _refusal(
        self, key: str, request: Request, headers: Mapping[str, str]
    ) -> tuple[int, Any] | None:
        for pattern, answer in self.refuses.items():
            if re.fullmatch(pattern, key):
                return answer
        if re.match(r"POST [\w.]*/(token|sts|introspect)", key):
            return None
        if request.host.endswith("served"):
            return self._unserved(headers)
        if not re.match(r"\w+ (serviceusage|storage)", key) and not self.is_known(
            self.enabled_at, self.lags.api
        ):
            return refused(403, "PERMISSION_DENIED", "API is disabled", "SERVICE_DISABLED")
        if self.clock < self.lags.busy and self._chance.random() < 0.15:
            busy = ((409, "ABORTED"), (429, "RESOURCE_EXHAUSTED"), (503, "UNAVAILABLE"))
            return refused(*self._chance.choice(busy), "try again later")
        for pattern, check in _CHECKS.items():
            if re.fullmatch(pattern, key):
                return check(self, request)
        return None

    def is_known(self, moment: float | None, lag: float) -> bool:
        """Whether something was done, and is known by now."""
        return moment is not None and self.clock >= moment + lag

    def has_role(self, account: str, role: str) -> bool:
        """Whether an account's binding was made, and takes effect."""
        lag = self.late.get(role, self.lags.role)
        return self.is_known(self.bound.get((account, role)), lag)

    def _remember(self, key: str, request: Request) -> None:
        if key.endswith(":batchEnable"):
            self.enabled_at = self.clock if self.enabled_at is None else self.enabled_at
        if re.fullmatch(r"POST iam/v1/projects/[^/]+/serviceAccounts", key):
            self.made.setdefault(request.body["accountId"], self.clock)
        if key.startswith("PUT logging/"):
            self.made.setdefault(request.body["name"], self.clock)
        if key.endswith(":addVersion"):
            self.made.setdefault("version", self.clock)
        if re.match(r"(POST|PUT) [\w-]+-run/apis", key):
            self.made.setdefault("service", self.clock)
        if key.endswith((":setIamPolicy", "/iam")) and isinstance(request.body, dict):
            policy = request.body.get("policy", request.body)
            for binding in policy.get("bindings", []):
                for member in binding["members"]:
                    account = member.partition(":")[2].partition("@")[0]
                    self.bound.setdefault((account, binding["role"]), self.clock)

    def _lagging(self, key: str, body: Any) -> Any:
        """Leave out of an answer what is not known yet."""
        if key.endswith("/versions") and not self.is_known(
            self.made.get("version"), self.lags.listing
        ):
            return {}
        is_service = re.match(r"\w+ [\w-]+-run/apis/.*/services", key) and "spec" in body
        if is_service and self._wants_token(body) and not self.has_role(self.names["run"], _READER):
            reason = "SecretsAccessCheckFailed"
            unready = [{"type": "Ready", "status": "False", "reason": reason, "message": "denied"}]
            return {**body, "status": {**body["status"], "conditions": unready}}
        return body

    def _wants_token(self, service: Json) -> bool:
        variables = service["spec"]["template"]["spec"]["containers"][0].get("env", [])
        return any("valueFrom" in variable for variable in variables)

    def _unserved(self, headers: Mapping[str, str]) -> tuple[int, Any] | None:
        """Refuse a call of the function: by the platform in HTML, or by the function in JSON."""
        if not self.is_known(self.made.get("service"), self.lags.address):
            return 404, b"<html>404 Not Found</html>"
        token = headers.get("Authorization", "").partition(" ")[2]
        if audience_of(token) == SERVED and not self.has_role(self.names["run"], _WRITER):
            error = {"code": "store_unavailable", "field": None, "message": "403 denied"}
            return 503, {"error": error}
        return None

    def _play(self, arguments: Sequence[str], tape: Tape) -> tuple[int, str, str, list[Any]]:
        """End a deployment as gcloud does whose service does not become ready."""
        code, output, error, exchanges = super()._play(arguments, tape)
        services = [n for n, e in enumerate(exchanges) if re.search(r"/services(/|$)", e[0])]
        if arguments[:2] == ("run", "deploy") and code == 0 and services:
            last = services[-1]
            if '"SecretsAccessCheckFailed"' in exchanges[last][2]:
                return 1, "", "ERROR: the revision is not ready", exchanges[: last + 1]
        return code, output, error, exchanges


_READER = "roles/secretmanager.secretAccessor"
_WRITER = "roles/storage.objectUser"


def _unknown_account(gcp: HostileGcp, request: Request) -> tuple[int, Json] | None:
    """A new account may not be known to who binds it."""
    policy = request.body.get("policy", request.body)
    for member in {m for b in policy.get("bindings", []) for m in b["members"]}:
        name = member.partition(":")[2].partition("@")[0]
        is_ours = member.startswith("serviceAccount:")
        if is_ours and not gcp.is_known(gcp.made.get(name), gcp.lags.account):
            return refused(400, "INVALID_ARGUMENT", f"Service account {member} does not exist.")
    return None


def _unseen_account(gcp: HostileGcp, request: Request) -> tuple[int, Json] | None:
    """A new account is not even there for a while, also for who made it."""
    made = gcp.made.get(request.path.rpartition("/")[2].partition("@")[0])
    if made is None or gcp.is_known(made, gcp.lags.account):
        return None
    return refused(404, "NOT_FOUND", "Unknown service account")


def _unreadable_source(gcp: HostileGcp, request: Request) -> tuple[int, Json] | None:
    """The account that builds reads the source only once its role takes effect."""
    if gcp.has_role(gcp.names["build"], "roles/run.builder"):
        return None
    message = "could not resolve source: does not have storage.objects.get access"
    return refused(400, "INVALID_ARGUMENT", message)


def _unseen_metric(gcp: HostileGcp, request: Request) -> tuple[int, Json] | None:
    """An alert may look at a metric only once that is visible."""
    for name in re.findall(r"logging\.googleapis\.com/user/([\w-]+)", str(request.body)):
        if not gcp.is_known(gcp.made.get(name), gcp.lags.metric):
            return refused(404, "NOT_FOUND", f"Cannot find metric(s) that match type {name}")
    return None


def _unborrowed(gcp: HostileGcp, request: Request) -> tuple[int, Json] | None:
    """Whoever deploys may call as the caller's account once that was granted, and takes effect."""
    if any(gcp.has_role(member, _BORROWER) for member, role in gcp.bound if role == _BORROWER):
        return None
    return refused(403, "PERMISSION_DENIED", "iam.serviceAccounts.getOpenIdToken denied")


_BORROWER = "roles/iam.serviceAccountOpenIdTokenCreator"

_CHECKS: dict[str, Callable[[HostileGcp, Request], tuple[int, Json] | None]] = {
    r"POST .*:setIamPolicy|PUT storage/.*/iam": _unknown_account,
    r"GET iam/.*/serviceAccounts/[^/:]+": _unseen_account,
    r"POST .*/builds:submit": _unreadable_source,
    r"POST iamcredentials/.*:generateIdToken": _unborrowed,
    r"(?:POST|PATCH) monitoring/v3/.*alertPolicies.*": _unseen_metric,
}
