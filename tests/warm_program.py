"""`python -m crawler deployment`, with the clock of a recording server and a gcloud that it plays.

Where the environment names a recording server (`RECORDER`), waiting costs nothing: its clock goes
on instead. A gcloud command that this server has seen before is played by it; others are run.
"""

import argparse
import functools
import http.client
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from crawler.cli.deployment import add_commands
from crawler.deployment.cloud import Cloud
from crawler.deployment.gcloud import Done, Exchange, run_gcloud
from crawler.errors import CrawlerError, SettingsError


def main() -> None:
    """Run one step; the arguments are those of `python -m crawler deployment …`."""
    assert sys.argv[1:4] == ["-m", "crawler", "deployment"], sys.argv
    args = PARSER.parse_args(sys.argv[3:])
    try:
        code = args.run(args)
    except CrawlerError as error:
        sys.stderr.write(f"{error}\n")
        code = 2 if isinstance(error, SettingsError) else 1
    sys.exit(code)


def open_cloud(environ: Mapping[str, str], project: str) -> Cloud:
    """Open Google at the recording server, or the real one where none is named."""
    recorder = environ.get("RECORDER")
    if recorder is None:
        return Cloud(environ, project)
    harness = http.client.HTTPConnection(recorder.removeprefix("http://"), timeout=300)

    def ask(what: str, **body: Any) -> Any:
        harness.request("POST", f"/harness/{what}", json.dumps(body))
        return json.loads(harness.getresponse().read())

    def run(arguments: Sequence[str], environ: Mapping[str, str]) -> Done:
        words = list(arguments)
        played = ask("play", arguments=words)
        if played is None:
            ask("begin", arguments=words)
            done = run_gcloud(arguments, environ)
            ask("end", arguments=words, code=done.code, output=done.output)
            return done
        code, output, error, exchanges = played
        return Done(code, output, error, [Exchange(*exchange) for exchange in exchanges])

    return Cloud(
        environ,
        project,
        clock=lambda: float(ask("clock", seconds=0)),
        sleep=lambda seconds: ask("clock", seconds=seconds),
        run=run,
    )


PARSER = argparse.ArgumentParser()
"""Made once, before the calls."""

add_commands(PARSER.add_subparsers(), functools.partial(open_cloud, os.environ))

if __name__ == "__main__":
    main()
