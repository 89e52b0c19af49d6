"""Real parts for the tests, each on a free loopback port and gone when its test is over."""

from collections.abc import Iterator

import pytest

from crawler.demo_site import DemoSite


@pytest.fixture
def demo_site() -> Iterator[DemoSite]:
    """A song site that answers at once and rightly."""
    with DemoSite() as site:
        yield site
