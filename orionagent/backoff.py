"""Owns the delay policies: how long until the next restart and the next request.

Pure: no clock and no random source of its own; `draw` (0 <= draw < 1) is an argument.
"""

RESTART_CAP_MS = 60_000
RETRY_STEPS_S = (5.0, 10.0, 30.0, 60.0)
JITTER = 0.1


def restart_delay_ms(base_ms: int, crashes: int, draw: float) -> float:
    """Return the wait before the restart that follows the `crashes`-th crash in a row.

    `base_ms * 2^(crashes-1)`, at most 60 s, shortened by up to a tenth so that scripts that crashed
    together do not come back together. Never negative; 0 when `base_ms` is 0.
    """
    doubled: int = base_ms << min(max(crashes, 1) - 1, 32)
    return min(doubled, RESTART_CAP_MS) * (1.0 - JITTER * draw)


def retry_delay_s(failures: int, draw: float) -> float:
    """Return the wait after the `failures`-th failed request in a row: 5, 10, 30, 60, 60 ... seconds.

    Shortened by up to a tenth, so that a fleet does not return as one.
    """
    step = RETRY_STEPS_S[min(max(failures, 1), len(RETRY_STEPS_S)) - 1]
    return step * (1.0 - JITTER * draw)
