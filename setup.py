"""Packaging of Orion Agent: what is installed and what it needs."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent


def read_version() -> str:
    """Read the version from the package without importing it."""
    for line in (HERE / "orionagent" / "__init__.py").read_text(encoding="utf-8").splitlines():
        if line.startswith("__version__"):
            return line.split('"')[1]
    raise RuntimeError("orionagent/__init__.py names no __version__")


CONSOLE = ["werkzeug>=3.1", "wsproto>=1.2"]
TEST = [
    "pytest>=8.2",
    "hypothesis>=6.100",
    "pexpect>=4.9",
    "msgpack>=1.0",
    "cryptography>=42",
    "mypy>=1.11",
    "ruff>=0.6",
    "types-requests",
    "types-psutil",
    "types-setuptools",
    "types-gevent",
    "types-docopt",
    "types-pexpect",
]

setup(
    name="orion-agent",
    version=read_version(),
    description="One daemon for metrics, process supervision and log delivery on Linux servers",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11",
    # The explicit "." makes an editable install a plain .pth line: the import hook that setuptools
    # writes otherwise costs the command line 10 ms at every start.
    package_dir={"": "."},
    packages=find_packages(include=["orionagent", "orionagent.*"]),
    package_data={"orionagent.console": ["static/*"], "orionagent": ["py.typed", "samples/*.sh"]},
    # A script, not an entry point: the generated entry point imports importlib.metadata and doubles
    # the start-up time of every command.
    scripts=["bin/orion"],
    data_files=[("share/man/man1", ["docs/orion.1"])],
    install_requires=[
        "gevent>=24.10",
        "psutil>=5.9",
        "requests>=2.32",
        "msgspec>=0.19",
        "docopt-ng>=0.9",
        # Arrow-key prompts of `orion setup`; without it the set-up asks line by line.
        "questionary>=2.0",
    ],
    extras_require={"console": CONSOLE, "test": TEST + CONSOLE, "dist": [*CONSOLE, "cx_Freeze>=8.4"]},
)
