"""The packaged program's main script."""

import sys

from orionagent.cli import main

sys.exit(main(sys.argv[1:]))
