"""Makes `python -m crawler` the command line."""

import sys

from crawler.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
