"""Owns every file location of the product, relocated as one by ORION_ROOT.

Knows nothing of what is in the files.
"""

import os
import posixpath


class Paths:
    """The product's file locations below one root ("/" on a server).

    Every attribute is an absolute path as text; nothing is created or looked at here.
    """

    def __init__(self, root: str = "/") -> None:
        self.root = posixpath.normpath(root)
        join = posixpath.join
        self.etc = join(self.root, "etc/orion")
        self.config = join(self.etc, "config.json")
        self.scripts = join(self.etc, "scripts.json")
        self.buffer = join(self.etc, "buffer.jsonl")
        self.rejected = join(self.etc, "rejected.jsonl")
        self.log = join(self.root, "var/log/orion-agent.log")
        self.run = join(self.root, "run/orion")
        self.socket = join(self.run, "agent.sock")
        self.lock = join(self.run, "agent.lock")
        self.state = join(self.run, "state.json")
        self.streams = join(self.run, "streams")

    @classmethod
    def from_environment(cls) -> "Paths":
        """Read ORION_ROOT; without it the locations are those of the guide."""
        root = os.environ.get("ORION_ROOT") or "/"
        return cls(os.path.abspath(root))

    def __repr__(self) -> str:
        return f"Paths({self.root!r})"


def project_config(folder: str) -> str:
    """Return where an application folder keeps its source token."""
    return posixpath.join(folder, ".orion", "config.json")
