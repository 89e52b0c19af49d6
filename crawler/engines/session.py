"""The `requests.Session` that step 1 gets: bounded in time and size, strict, and watched.

Whatever function runs on it, every request keeps the attempt's deadline however slowly the site
trickles, every body is whole and no larger than a page may be, and what the site answered is
remembered, so that a function that swallows errors still loses nothing.
"""

import ssl
import threading
from collections.abc import Callable
from http.cookiejar import DefaultCookiePolicy

import certifi
import requests

from crawler.engines.adapter import GuardedAdapter, Seen
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

    def end(self) -> None:
        """End an attempt: step 1 has what it wanted. May be called from another thread."""
        self._adapter.forget_body()

    @property
    def seen(self) -> Seen | None:
        """What the attempt's requests came to, None when it made none.

        Of several the first that failed: what came after it may rest on what it did not bring.
        """
        answers = self._adapter.answers
        return next((seen for seen in answers if seen.is_failure), answers[-1] if answers else None)

    @property
    def was_held_back(self) -> bool:
        """Whether a request of the attempt was not sent, because a pause began."""
        return self._guard.was_held_back

    @property
    def sent(self) -> int:
        """Requests that the attempt sent."""
        return self._guard.sent
