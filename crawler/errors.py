"""The errors of this project, one tree; each class exists because some caller treats it differently.

CrawlerError
├── SettingsError          the deployment is wrong: nothing was sent, mend it and start again
├── RequestError           the caller is wrong: carries the HTTP status, a code and the field
├── PageError              one page is not what was asked for: costs one attempt of one number
├── StoppedError           a gather ended before its work did: says why, results so far are kept
└── StoreError             the store cannot be used as asked
    ├── StoreUnavailableError   it cannot be reached, or refuses us: try later, or mend the rights
    ├── StoreConflictError      somebody else wrote first: read, merge, write again
    ├── StoreMismatchError      it holds another host's, source's or schema's records
    └── BlockFormatError        one object in it is broken: named, never silently dropped

`Missing` is no error of ours: a step 1 function raises it to say that a number has no page.
"""

from collections.abc import Sequence


class CrawlerError(Exception):
    """Anything this project raises on purpose.

    Attributes:
        also: What else is wrong in the same place, so that all can be mended at once; the text of
            this error tells it, too.
    """

    also: "Sequence[SettingsError | RequestError]" = ()

    @property
    def messages(self) -> list[str]:
        """One sentence for each thing that is wrong, this one first."""
        return [Exception.__str__(self), *(text for error in self.also for text in error.messages)]

    def __str__(self) -> str:
        return "; ".join(self.messages)


class Problems:
    """Collects what callers and deployments did wrong, so that all of it is told at once.

    problems = Problems()
    with problems:
        request = check_request(asked)
    with problems:
        settings = read_settings(environ)
    problems.raise_all()
    """

    def __init__(self) -> None:
        self._errors: list[SettingsError | RequestError] = []

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: object, _trace: object) -> bool:
        if not isinstance(error, SettingsError | RequestError):
            return False
        self._errors += [error, *error.also]
        error.also = ()
        return True

    def raise_all(self) -> None:
        """Raise the first with all others in `also`: the request, settings, what is missing."""
        once: dict[str, SettingsError | RequestError] = {}
        for error in self._errors:
            once.setdefault(error.messages[0], error)
        errors = sorted(once.values(), key=_rank)
        if errors:
            errors[0].also = errors[1:]
            raise errors[0]


def _rank(error: "SettingsError | RequestError") -> int:
    if isinstance(error, RequestError):
        return 0
    return 2 if error.code.endswith("_missing") else 1


class SettingsError(CrawlerError):
    """A setting is absent or malformed.

    Attributes:
        code: A stable word for machines, such as `token_missing`.
        field: The name of the environment variable.
    """

    def __init__(self, code: str, field: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.field = field


class RequestError(CrawlerError):
    """The caller's request cannot be carried out as it stands.

    Attributes:
        status: The HTTP status to answer with, 400 to 499.
        code: A stable word for machines, such as `body_empty`.
        field: What is wrong: a parameter, `body`, `query` or a header's name; None for the request
            as a whole.
    """

    def __init__(self, status: int, code: str, field: str | None, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.field = field


class PageError(CrawlerError):
    """A page is not what was asked for.

    Attributes:
        kind: One word of FAILURE_KINDS in `crawler.frontier.verdict`, such as `json` or `mismatch`.
        detail: What came, for people; at most a line, never a secret.
    """

    def __init__(self, kind: str, detail: str = "") -> None:
        super().__init__(f"{kind}: {detail}" if detail else kind)
        self.kind = kind
        self.detail = detail


class StoppedError(CrawlerError):
    """A gather ended before every item was done; what was collected so far is kept.

    Attributes:
        stopped_by: The reason, a word of `crawler.answer.STOPS`.
    """

    def __init__(self, stopped_by: str, message: str) -> None:
        super().__init__(message)
        self.stopped_by = stopped_by


class QueueError(CrawlerError):
    """The task queue cannot be used; tasks created before stay."""


class StoreError(CrawlerError):
    """The store cannot be used as asked; what it held before is unharmed."""


class StoreUnavailableError(StoreError):
    """The store cannot be reached, is full, or refuses us."""


class StoreConflictError(StoreError):
    """The object changed since it was read, so nothing was written."""


class StoreMismatchError(StoreError):
    """The store holds records of another host, source, schema or newer format."""


class BlockFormatError(StoreError):
    """An object under `songs/` is not a block this version can read; the message names it."""


class Missing(Exception):  # noqa: N818 - an answer a step 1 function gives, not an error
    """Raise it in a step 1 function to say: the site has no page under this number."""
