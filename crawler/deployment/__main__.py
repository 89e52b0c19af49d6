"""`python -m crawler.deployment` prints the file `deploy.env.example`."""

import sys

from crawler.deployment.deployment import example_lines

sys.stdout.write("\n".join(example_lines()) + "\n")
