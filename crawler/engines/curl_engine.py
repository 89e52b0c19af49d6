"""The `curl` engine: one lane, in which libcurl makes many requests at once. It runs sources."""

import certifi

from crawler.engines.curl_handles import handle_options
from crawler.engines.curl_lane import CurlLane


class CurlEngine:
    """Runs a source in one lane with so many connections."""

    name = "curl"
    lane_count = 1

    def __init__(
        self,
        connections: int,
        *,
        user_agent: str,
        attempt_seconds: float,
        ca_file: str | None = None,
    ) -> None:
        """Prepare; `ca_file` replaces the usual certificate authorities (certifi's)."""
        self.connections = connections
        self.attempt_seconds = attempt_seconds
        self.user_agent = user_agent
        self.ca_file = ca_file or certifi.where()

    def open_lane(self) -> CurlLane:
        """Make the lane."""
        options = handle_options(
            user_agent=self.user_agent, attempt_seconds=self.attempt_seconds, ca_file=self.ca_file
        )
        return CurlLane(self.connections, options)
