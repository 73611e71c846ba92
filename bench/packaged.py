"""Owns the measure of the packaged program: whole commands beside a bare interpreter, and its memory after some starts.

Knows nothing of the peers. Needs the tree that `make dist` leaves behind.
"""

import shutil
import statistics
import sys
from pathlib import Path

from bench.children import quiet
from bench.machine import memory_mb, run_ms
from bench.peers import REPOSITORY, Orion, fresh_folder, settle

CALLS = 60
SCRIPTS = 20
STARTS = 5
SETTLE_S = 8.0
# Debian's own interpreter where there is one: packages bring its byte code along.
PYTHON = shutil.which("python3", path="/usr/bin:/bin") or sys.executable


class Packaged(Orion):
    """The program that `make dist` froze; `scheme` is how it talks to its backend.

    The sink has no certificate, so with https nothing is delivered; but each try loads the authorities' certificates,
    and those are what https costs.
    """

    scheme = "http"

    def address(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.sink.port}"


def find_program() -> Path | None:
    """Return the last build's program."""
    found = sorted(REPOSITORY.glob("build/freeze/orion-agent-*/orion"))
    return found[-1] if found else None


def commands_ms(program: str) -> dict[str, float]:
    """Return the medians of whole commands, one of each in turn, so that a noisy moment meets them all."""
    bare = f"{PYTHON} -I -S -c pass"
    samples: dict[str, list[float]] = {bare: [], "orion log": [], "orion status": [], "orion version": []}
    peer = Packaged(fresh_folder("packaged"))
    peer.program = program
    try:
        peer.start(quiet(SCRIPTS)(peer.folder))
        settle(1.0)
        commands = {name: [program, *name.split()[1:]] for name in samples}
        commands |= {bare: bare.split(), "orion log": peer.log_argv()}
        for _ in range(CALLS):
            for name, argv in commands.items():
                taken_ms, code = run_ms(argv, peer.env)
                if code:
                    raise RuntimeError(f"{name} ended with {code}")
                samples[name].append(taken_ms)
    finally:
        peer.stop()
        shutil.rmtree(peer.folder, ignore_errors=True)
    return {name: statistics.median(values) for name, values in samples.items()}


def rss_mb(program: str, scheme: str) -> list[float]:
    """Return the resident memory without scripts of some starts, each after 8 s."""
    found = []
    for _ in range(STARTS):
        peer = Packaged(fresh_folder("packaged"))
        peer.program, peer.scheme = program, scheme
        try:
            peer.start([])
            settle(SETTLE_S)
            found.append(memory_mb(peer.pids(set())))
        finally:
            peer.stop()
            shutil.rmtree(peer.folder, ignore_errors=True)
    return found


def run() -> None:
    """Print both tables."""
    program = find_program()
    if program is None:
        print("skipped packaged: there is no build; make dist makes one")
        return
    times = commands_ms(str(program))
    floor = next(iter(times.values()))
    print(f"\n### Whole life of a packaged command, {SCRIPTS} scripts\n")
    print("| command | ms | to the first |\n|---|---|---|")
    for name, value in times.items():
        print(f"| {name} | {value:.1f} | {value / floor:.2f} |")
    print(f"\n### RSS in MiB of the packaged agent, no script, {SETTLE_S:.0f} s after its start\n")
    print("| backend | least | most |\n|---|---|---|")
    for scheme in ("http", "https"):
        values = rss_mb(str(program), scheme)
        print(f"| {scheme} | {min(values):.1f} | {max(values):.1f} |")
