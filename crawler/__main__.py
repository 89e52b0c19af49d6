"""Makes `python -m crawler` the command line."""

from crawler.cli.main import run_process

if __name__ == "__main__":
    run_process()
