"""How hard the property tests look: `make fuzz` sets FUZZ_FACTOR, so that each tries so many times more examples."""

import os

FACTOR = int(os.environ.get("FUZZ_FACTOR", "1"))


def examples(usual: int) -> int:
    """Return how many examples a property is tried with; `usual` of them in `make test`."""
    return usual * FACTOR
