"""wrk: what the site can give; no Python, no decoding, the answers only counted.

It runs for a time and not for a number of pages: as long as `--count` pages take at 50,000/s, one
second at least. With latency it is bound by its connections like everybody else.
"""

import json
import subprocess
import tempfile
from pathlib import Path

from benchmarks.contestants.race import HEADERS, Options, measure, read_options, report
from benchmarks.site import find_program

SCRIPT = """
local num = 0
wrk.headers = {headers}
request = function()
  num = num % {count} + 1
  return wrk.format("GET", "/songs/" .. num)
end
done = function(summary, latency, requests)
  local e = summary.errors
  local errors = e.connect + e.read + e.write + e.status + e.timeout
  io.write(string.format('{{"pages": %d, "errors": %d}}\\n', summary.requests, errors))
end
"""


def main() -> None:
    """Run wrk as a child and report what it counted."""
    options = read_options()
    said: list[str] = []
    measured = measure(lambda: said.append(run_wrk(options)))
    counts = json.loads(next(line for line in said[0].splitlines() if line.startswith("{")))
    seconds = run_seconds(options)
    report({**measured, "seconds": seconds}, pages=counts["pages"], lacking=counts["errors"])


def run_seconds(options: Options) -> int:
    """Choose how long to run, whole seconds."""
    return max(1, options.count // 50_000)


def run_wrk(options: Options) -> str:
    """Run wrk with a script that asks for one number after the other."""
    pairs = ", ".join(f'["{name}"] = "{value}"' for name, value in HEADERS.items())
    with tempfile.TemporaryDirectory(prefix="bench-wrk-") as folder:
        script = Path(folder) / "songs.lua"
        script.write_text(SCRIPT.format(headers="{" + pairs + "}", count=options.count))
        command = [find_program("wrk", "wrk"), "-t2", f"-c{max(2, options.connections)}"]
        command += [f"-d{run_seconds(options)}s", "--timeout", "60s", "-s", str(script)]
        command.append(options.base_url)
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main()
