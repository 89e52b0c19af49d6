"""Runs the benchmarks: `python -m benchmarks --help` says how."""

import sys

from benchmarks.bench import main

if __name__ == "__main__":
    sys.exit(main())
