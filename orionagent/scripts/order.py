"""Owns the order in which scripts start: waves, each of which waits for the one before.

Pure: knows only names and `after` lists.
"""

from collections.abc import Mapping, Sequence

from orionagent.errors import ConfigError


def find_waves(after: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Return the names in waves: a script comes in a later wave than everything it is `after`.

    Stopping takes the waves in reverse. Within a wave the mapping's order is kept.

    Raises:
        ConfigError: a script is after one that does not exist, or scripts wait for each other in a circle.
    """
    for name, earlier in after.items():
        for other in earlier:
            if other not in after:
                raise ConfigError(f"cannot order the scripts: {name} is after {other!r}, which is not a script")
    waiting = {name: set(earlier) for name, earlier in after.items()}
    waves: list[list[str]] = []
    placed: set[str] = set()
    while waiting:
        wave = [name for name, earlier in waiting.items() if earlier <= placed]
        if not wave:
            raise ConfigError(f"cannot order the scripts: {', '.join(waiting)} wait for each other; change `after`")
        waves.append(wave)
        placed.update(wave)
        for name in wave:
            del waiting[name]
    return waves
