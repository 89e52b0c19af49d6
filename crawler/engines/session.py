"""The `requests.Session` that step 1 gets: bounded in time and size, strict, and watched.

Whatever function runs on it, every request keeps the attempt's deadline however slowly the site
trickles, every body is whole and no larger than a page may be, and what the site answered is
remembered, so that a function that swallows errors still loses nothing.
"""

import ssl
import threading
from collections.abc import Callable
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import certifi
import requests

from crawler.engines.adapter import GuardedAdapter, Seen, seen_of
from crawler.engines.guard import Guard
from crawler.engines.resolver import Resolver
from crawler.engines.room import BodyRoom

__all__ = ["GuardedSession", "Seen", "Shared"]


class Shared:
    """What all sessions of a run share; safe in threads.

    Attributes:
        room: What all bodies in flight share.
        resolver: Asks for names.
    """

    def __init__(self, ca_file: str | None = None, resolver: Resolver | None = None) -> None:
        """Prepare; `ca_file` replaces the usual certificate authorities (certifi's)."""
        self.room = BodyRoom()
        self.resolver = resolver or Resolver()
        self._ca_file = ca_file or certifi.where()
        self._tls_lock = threading.Lock()
        self._tls: ssl.SSLContext | None = None

    def tls(self) -> ssl.SSLContext:
        """Give the one context for https; it verifies certificate and host."""
        with self._tls_lock:
            if self._tls is None:
                self._tls = ssl.create_default_context(cafile=self._ca_file)
                self._tls.set_alpn_protocols(["http/1.1"])
            return self._tls


class GuardedSession(requests.Session):
    """A session for one lane; not safe in threads, as no `requests.Session` is.

    No proxies and no netrc. A session for a source also keeps no cookies.
    """

    def __init__(
        self,
        user_agent: str,
        shared: Shared,
        *,
        keeps_cookies: bool,
        cut_bytes: int | None = None,
    ) -> None:
        """Open a session; with `cut_bytes` a longer body is cut there, and no error."""
        super().__init__()
        self.trust_env = False
        self.headers["User-Agent"] = user_agent
        self.headers["Accept-Encoding"] = "gzip"
        if not keeps_cookies:
            self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self._guard = Guard(shared.resolver, shared.tls)
        self._returned: dict[tuple[str | None, str | None], Seen] = {}
        self._depth = 0
        self._adapter = GuardedAdapter(self._guard, shared.room, cut_bytes)
        self.mount("https://", self._adapter)
        self.mount("http://", self._adapter)

    def mount(self, prefix: str | bytes, adapter: requests.adapters.BaseAdapter) -> None:
        """Refuse any other adapter: it would keep no deadline, no pause and no count.

        Raises:
            ValueError: Always, once the session is open.
        """
        if getattr(self, "_adapter", adapter) is not adapter:
            raise ValueError(
                "leave out session.mount(...): retries, pace and deadline are the crawl's own"
            )
        super().mount(prefix, adapter)

    def begin(self, deadline: float, may_send: Callable[[], bool]) -> None:
        """Begin an attempt that ends at `deadline`, monotonic seconds.

        `may_send` is asked just before the bytes of each request go out.
        """
        self._guard.begin(deadline, may_send)
        self._adapter.answers.clear()
        self._returned.clear()

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        """Send a request, and remember what its caller gets: redirects and challenges left out.

        requests calls this again for each hop of a redirect, and a hook such as that of digest
        authentication asks again beneath it. Neither hop is what the function sees.
        """
        asked, told = (request.method, request.url), len(self._adapter.answers)
        self._depth += 1
        try:
            response = super().send(request, **options)
        except requests.RequestException:
            if self._depth == 1 and len(self._adapter.answers) > told:
                self._returned[asked] = self._adapter.answers[-1]
            raise
        else:
            if self._depth == 1:
                self._returned[asked] = seen_of(response)
            return response
        finally:
            self._depth -= 1

    def end(self) -> None:
        """End an attempt: step 1 has what it wanted. May be called from another thread."""
        self._adapter.forget_body()

    @property
    def returned(self) -> list[Seen]:
        """What the attempt's requests came to, in order: of each method and address the last.

        Where the function went beneath `session`, what its adapter saw.
        """
        return list(self._returned.values()) or list(self._adapter.answers)

    @property
    def was_held_back(self) -> bool:
        """Whether a request of the attempt was not sent, because a pause began."""
        return self._guard.was_held_back

    @property
    def sent(self) -> int:
        """Requests that the attempt sent."""
        return self._guard.sent
