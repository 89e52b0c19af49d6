"""Real parts for the tests, each on a free loopback port and gone when its test is over."""

from collections.abc import Iterator

import pytest

from crawler.demo_site import DemoSite
from tests.faulty_site import FaultySite


@pytest.fixture
def demo_site() -> Iterator[DemoSite]:
    """A song site that answers at once and rightly."""
    with DemoSite() as site:
        yield site


@pytest.fixture
def faulty_site() -> Iterator[FaultySite]:
    """A site that misbehaves as each address says."""
    with FaultySite() as site:
        yield site


@pytest.fixture
def faulty_site_tls() -> Iterator[FaultySite]:
    """The same over TLS, with an authority of its own at `ca_path`."""
    with FaultySite(tls=True) as site:
        yield site
