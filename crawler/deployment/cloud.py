"""Calls to Google: gcloud and the REST APIs under one policy of retrying, by status.

What passes by itself (a role, an account, an API or a metric that is not known everywhere yet, an
operation under way, 429, 5xx) is tried again until a deadline; what does not ends at once. Both are
told by the HTTP status of the call that failed, which gcloud gives with `log_http`.
"""

import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, TypeVar

import requests

from crawler.deployment.gcloud import Refusal, Run, refusal_of, run_gcloud, tell
from crawler.errors import CrawlerError

DEADLINE_SECONDS = 600.0
"""So long a call is repeated: a log-based metric takes up to 10 minutes, a role 7 and more.

Source: cloud.google.com/iam/docs/access-change-propagation; terraform-provider-google issue 11102.
"""

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 2.0, 60.0

REQUEST_SECONDS = 60.0

TRANSIENT = frozenset({0, 408, 429, 500, 502, 503, 504})
"""Statuses that say nothing about the call; 0: there was no answer."""

T = TypeVar("T")


def as_signed(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Leave a request its token, for which requests would put a password of `~/.netrc`."""
    return request


Paragraph = Literal[
    "Google refuses whoever deploys",
    "Google refuses a value",
    "Google does not come round",
    "The bucket is taken",
    "The secret cannot be made",
    "The region lacks a service",
    "No identity token can be had",
    "The trial of a new version failed",
    "There is no version to go back to",
    "Your own function cannot be used",
    "A setting is wrong",
]
"""The paragraphs of `RUNBOOK.md` on how a deployment can end; `deploy.sh` itself names some more."""


def see(paragraph: Paragraph) -> str:
    """Return the last line of a message: where one reads on."""
    return f'\nSee RUNBOOK.md, "{paragraph}".'


class DeploymentError(CrawlerError):
    """The deployment ends: what is wrong, what to do, and the paragraph of `RUNBOOK.md` on it."""

    def __init__(self, message: str, paragraph: Paragraph) -> None:
        super().__init__(message + see(paragraph))


class CloudError(DeploymentError):
    """Google refused a call, and repeating it would not help, or did not within the deadline."""

    def __init__(self, what: str, refusal: Refusal, waited_for: str | None = None) -> None:
        words = " ".join(str(word) for word in (refusal.status, refusal.code) if word)
        told = f"{what}: {words + ': ' if words else ''}{refusal.message}".strip()
        if waited_for is not None:
            told += f"\nThis was waited for, in vain for 10 minutes: {waited_for}."
        advice, paragraph = _advice(refusal, waited_for)
        super().__init__(f"{told}\n{advice}", paragraph)
        self.refusal = refusal


_OWN_RIGHTS = "IAM_PERMISSION_DENIED"  # whoever deploys lacks a right: no wait grants it
_PASSING = (
    (r".*(:[gs]etIamPolicy|/iam)", (400, 404), "a new account to be known everywhere"),
    (r"GET .*/serviceAccounts/[^/:]+", (404,), "a new account to be known everywhere"),
    (r"POST .*/builds:submit", (400, 403, 404), "the role of the account that builds"),
    (r"(POST|PUT) .*/services(/[^/]+)?", (403, 404), "the function's account to be known"),
    (r"(POST|PATCH) .*/jobs(/[^/]+)?", (403, 404), "the caller's account to be known"),
    (r"POST .*:generateIdToken", (403, 404), "the right to call as the caller's account"),
    (r"TRIAL /", (403, 404), "the right to call the new version, and its address"),
    (r"(POST|PATCH) .*/alertPolicies.*", (404,), "a new metric to be visible"),
)
"""Calls, the statuses that pass there, and what it is that is waited for."""

_CONDITIONS = {
    "SecretsAccessCheckFailed": "the function's right to read the token",
    "store_unavailable": "the function's right to its bucket",
    "store": "the function's right to its bucket",
}
"""Why a new revision is not ready or answers that it cannot, though no call failed."""


def passing(refusal: Refusal) -> str | None:
    """Return in words what a refused call waits for; None where waiting does not help."""
    status = refusal.status
    if status is None:
        return _CONDITIONS.get(refusal.code)
    if status in TRANSIENT:
        return "Google, which answers " + (str(status) if status else "nothing")
    is_bucket = re.fullmatch(r"POST .*/b", refusal.call)  # its name may be somebody else's
    is_taken = refusal.code == "ALREADY_EXISTS" or (refusal.code != "ABORTED" and is_bucket)
    if status == 409 and not is_taken:
        return "an operation that is under way"
    if status == 403 and "SERVICE_DISABLED" in refusal.reasons:
        return "an API that was enabled a moment ago"
    if _OWN_RIGHTS in refusal.reasons:
        return None
    for call, statuses, awaited in _PASSING:
        if status in statuses and re.fullmatch(call, refusal.call):
            return awaited
    return None


def _advice(refusal: Refusal, waited_for: str | None) -> tuple[str, Paragraph]:
    """Return what is to be done, with the command that goes on, and the runbook's paragraph."""
    again = "then run the same command again: what is made already stays."
    call, status = refusal.call, refusal.status
    if waited_for is not None:
        hint = "Run the same command again: it goes on from here."
        return hint, "Google does not come round"
    if re.fullmatch(r"403 GET .*/b/(?!run-sources-)[^/]+|409 POST .*/b", f"{status} {call}"):
        hint = f"The bucket may be another project's: set another BUCKET, {again}"
        return hint, "The bucket is taken"
    if status in (401, 403):
        hint = (
            f"Whoever deploys (gcloud auth list) may not do this: have the right granted, {again}"
        )
        return hint, "Google refuses whoever deploys"
    if re.fullmatch(r"POST .*/secrets", call):
        hint = (
            "Where an organisation bars keeping it in every region, set SECRET_REPLICATION=region"
        )
        return f"{hint} in deploy.env, {again}", "The secret cannot be made"
    if re.fullmatch(r"(POST|PUT) .*/services(/[^/]+)?", call):
        hint = "If it is about instances: a new project may have 10 of a size; lower MAX_INSTANCES"
        return f"{hint} or ask for more, {again}", "Google refuses a value"
    return f"Mend it, {again}", "Google refuses a value"


class Cloud:
    """Google as whoever is logged in with gcloud sees it.

    Args:
        environ: Of the process; gcloud's own endpoint overrides in it hold for the REST APIs, too.
        project: The project that pays.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        project: str = "",
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        run: Run = run_gcloud,
    ) -> None:
        self.project = project
        self._environ, self._clock, self._sleep = dict(environ), clock, sleep
        self._run = run
        self.waits = True  # False: only for what says nothing about the call
        self.session = requests.Session()
        self.session.auth = as_signed

    def persist(self, what: str, attempt: Callable[[], T]) -> T:
        """Repeat a call that raises CloudError for as long as that may pass, with growing pauses.

        Raises:
            CloudError: It does not pass, or not within the deadline.
        """
        end, pause = self._clock() + DEADLINE_SECONDS, FIRST_PAUSE_SECONDS
        while True:
            try:
                return attempt()
            except CloudError as error:
                awaited = passing(error.refusal)
                if awaited is None or not (self.waits or error.refusal.status in TRANSIENT):
                    raise
                left = end - self._clock()
                if left <= 0:
                    raise CloudError(what, error.refusal, awaited) from None
            tell(f"{what}: waiting for {awaited}; again in {min(pause, left):.0f} s")
            self._sleep(min(pause, left))
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def gcloud(self, *arguments: str, may_lack: bool = False) -> str | None:
        """Run a gcloud command and return what it printed; its progress goes to stderr.

        What a `create` finds there already counts as made: an earlier try made it.

        Args:
            arguments: Without the first word.
            may_lack: Return None where what it is about is not there.

        Raises:
            CloudError: It failed for good.
        """
        words = [word for word in arguments if not word.startswith("-")]
        what, tries = " ".join(["gcloud", *words[:5]]), 0

        def attempt() -> str | None:
            nonlocal tries
            tries += 1
            done = self._run(arguments, self._environ)
            if done.code == 0:
                return done.output
            refusal = done.refusal(what)
            is_made = refusal.code == "ALREADY_EXISTS" or (tries > 1 and refusal.status == 409)
            if is_made and "create" in arguments:
                return ""
            if refusal.status == 404 and may_lack:
                return None
            raise CloudError(what, refusal)

        return self.persist(what, attempt)

    def call(
        self,
        api: str,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Any = None,
        data: bytes | None = None,
    ) -> Any:
        """Call a REST API and return its JSON, or bytes where it answers something else.

        Args:
            api: Its first name, such as `monitoring`.
            path: Without a slash in front, version included.
            body: JSON to send.
            data: Bytes to send instead.

        Raises:
            CloudError: It failed for good.
        """
        what, called = f"{method} {api} /{path}", f"{method} /{path}"
        url = f"{self._endpoint(api)}{path}"

        def attempt() -> Any:
            self._sign()
            try:
                reply = self.session.request(
                    method, url, params=params, json=body, data=data, timeout=REQUEST_SECONDS
                )
            except requests.RequestException as error:
                refusal = Refusal(called, 0, message=type(error).__name__)
                raise CloudError(what, refusal) from None
            if reply.status_code >= 400:
                raise CloudError(what, refusal_of(called, reply.status_code, reply.text))
            is_json = "json" in reply.headers.get("Content-Type", "")
            return reply.json() if is_json and params != MEDIA else reply.content

        return self.persist(what, attempt)

    def _sign(self) -> None:
        """Let all calls be made as whoever is logged in, at the project's cost."""
        if "Authorization" not in self.session.headers:
            token = (self.gcloud("auth", "print-access-token") or "").strip()
            self.session.headers["Authorization"] = f"Bearer {token}"
            if self.project:
                self.session.headers["X-Goog-User-Project"] = self.project

    def listed(self, api: str, path: str, plural: str, **params: str) -> Iterator[dict[str, Any]]:
        """Go through a listing, page by page."""
        while True:
            page = self.call(api, "GET", path, params=params)
            yield from page.get(plural, [])
            if not page.get("nextPageToken"):
                return
            params["pageToken"] = page["nextPageToken"]

    def _endpoint(self, api: str) -> str:
        override = self._environ.get(f"CLOUDSDK_API_ENDPOINT_OVERRIDES_{api.upper()}")
        if override is None:
            return f"https://{api}.googleapis.com/"
        return override.removesuffix("storage/v1/")


MEDIA = {"alt": "media"}
"""The query that asks Cloud Storage for an object's bytes."""
