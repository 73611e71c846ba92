"""Starts the packaged program: what cx_Freeze runs first, in place of its own script.

Must not import anything before the quick answers are given: that is the whole command's time.
"""

import _signal
import sys

from orionagent.fastpath import answer


def run(name: str) -> None:
    """Answer quickly, or run the main script; cx_Freeze calls this with that script's module name."""
    answer(sys.argv[1:])
    # What a Python interpreter does at its start, and the embedded one (an isolated PyConfig) leaves out:
    # without it the daemon would end with the first client that hangs up.
    _signal.signal(_signal.SIGPIPE, _signal.SIG_IGN)
    if _signal.getsignal(_signal.SIGINT) is _signal.SIG_DFL:
        _signal.signal(_signal.SIGINT, _signal.default_int_handler)
    sys.frozen = True  # type: ignore[attr-defined]
    import warnings  # noqa: PLC0415

    # requests would say on every start that it cannot guess encodings: EXCLUDES in freeze.py has the reason.
    warnings.filterwarnings("ignore", "Unable to find acceptable character detection")
    __import__(name)
