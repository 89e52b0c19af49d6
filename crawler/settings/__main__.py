"""`python -m crawler.settings` prints the page `docs/settings.md`."""

import sys

from crawler.settings.table import settings_page

sys.stdout.write(settings_page())
