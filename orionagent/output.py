"""Owns standard output where a person or a program waits for words: written whole, or said why not.

Must not know what is written.
"""

from orionagent.errors import OrionError
from orionagent.fastpath import write_all


def put(text: str) -> None:
    """Write to standard output; blocks while the reader does.

    Raises:
        BrokenPipeError: the reader has seen enough.
        OrionError: it takes no more, as on a full disk.
    """
    try:
        write_all(1, text)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OrionError(f"cannot write the answer: {error.strerror}") from error
