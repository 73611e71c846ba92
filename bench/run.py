"""Owns `make bench`: measures the agent, its peers and the machine's own limit in one run, prints ratios.

Knows nothing of how the agent works inside. Only ratios within one run mean anything: machines differ, and
this one may be shared (the last line says how much of it strangers used).

    python -m bench.run [splitter cli packaged memory restart burst rate idle fleet]
"""

import contextlib
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench import packaged, splitter
from bench.children import Child, quiet, writer
from bench.machine import busy_seconds, cpu_seconds, memory_mb, run_ms, switches, until
from bench.peers import ALL, Orion, Peer, fresh_folder, settle

BURST_LINES = int(os.environ.get("BENCH_LINES", "1000000"))
RATE, RATE_S = 5000, int(os.environ.get("BENCH_RATE_S", "10"))
IDLE_S = int(os.environ.get("BENCH_IDLE_S", "30"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
KILLS = 12
CALLS = 20
FLEET = 200

Row = tuple[str, ...]


def table(title: str, head: Row, rows: list[Row]) -> None:
    """Print one Markdown table."""
    print(f"\n### {title}\n\n| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    sys.stdout.flush()


@contextlib.contextmanager
def running(kind: type[Peer], make: Callable[[Path], list[Child]]) -> Iterator[tuple[Peer, list[Child], list[int]]]:
    """Run one peer with children; yield it, them, and the daemon's pids."""
    folder = fresh_folder(kind.name)
    peer = kind(folder)
    try:
        (folder / "ch").mkdir()
        children = make(folder / "ch")
        peer.start(children)
        settle(1.0)
        yield peer, children, peer.pids({child.pid for child in children})
    finally:
        peer.stop()
        shutil.rmtree(folder, ignore_errors=True)


def present() -> list[type[Peer]]:
    """Return the peers that can be measured here and say which cannot."""
    found = []
    for kind in ALL:
        why = kind.missing()
        if why is None:
            found.append(kind)
        else:
            print(f"skipped {kind.name}: {why}")
    return found


def ratio(value: float, base: float) -> str:
    return f"{value / base:.2f}" if base else "-"


# ------------------------------------------------------------------------------------------------ throughput


def ceiling_lines_per_s() -> float:
    """Return how fast one Python process reads the generator's pipe and counts lines: the least possible."""
    folder = fresh_folder("ceiling")
    code = (
        "import os,sys\nn=0\nwhile True:\n d=os.read(0,262144)\n n+=d.count(b'\\n')\n if n>=int(sys.argv[1]): break\n"
    )
    try:
        child = writer(folder, "w", "burst", BURST_LINES)
        with subprocess.Popen(child.argv, stdout=subprocess.PIPE) as generator:
            for _ in until(10.0):
                if (child.folder / "ready").exists():
                    break
            reader = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", code, str(BURST_LINES)], stdin=generator.stdout
            )
            settle(0.2)
            started = time.perf_counter()
            generator.send_signal(signal.SIGUSR1)
            reader.wait()
            seconds = time.perf_counter() - started
            generator.kill()
        return BURST_LINES / seconds
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def capture(kind: type[Peer], mode: str, *arguments: int) -> dict[str, float]:
    """Run one child until all its lines have arrived or nothing arrives for 10 s."""
    expected = arguments[0] if mode == "burst" else arguments[0] * arguments[1]
    with running(kind, lambda folder: [writer(folder, "w0", mode, *arguments)]) as (peer, children, pids):
        cpu = cpu_seconds(pids)
        os.kill(children[0].pid, signal.SIGUSR1)
        arrived, moved = 0, time.monotonic()
        for _ in until(300.0, 0.1):
            now = peer.lines_arrived()
            if now != arrived:
                arrived, moved = now, time.monotonic()
            if children[0].done_ns and (arrived >= expected or time.monotonic() - moved > 10):
                break
        used = cpu_seconds(pids) - cpu
        first_ns = (children[0].done_ns or (0, 0))[0]
        seconds = (peer.last_arrival_ns() - first_ns) / 1e9
        found = {
            "lines_per_s": arrived / seconds,
            "cpu_per_million": used / expected * 1e6,
            "share": used / seconds * 100,
            "peak_mb": memory_mb(pids, "VmHWM"),
            "lost": expected - arrived,
        }
        if isinstance(peer, Orion):
            stats = peer.sink.stats()
            found |= {"p50": stats["p50Ms"], "p99": stats["p99Ms"]}
        return found


def medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(found[key] for found in rounds) for key in rounds[0]}


def burst() -> None:
    ceiling = statistics.median(ceiling_lines_per_s() for _ in range(ROUNDS))
    rows: list[Row] = [("python reads and counts", f"{ceiling:,.0f}", "1.00", "", "", "")]
    for kind in present():
        found = medians([capture(kind, "burst", BURST_LINES) for _ in range(ROUNDS)])
        rows.append(
            (
                kind.name + (" (to HTTP)" if kind is Orion else " (to a file)"),
                f"{found['lines_per_s']:,.0f}",
                ratio(found["lines_per_s"], ceiling),
                f"{found['cpu_per_million']:.2f}",
                f"{found['peak_mb']:.0f}",
                f"{found['lost']:.0f}",
            )
        )
    table(
        f"Burst of {BURST_LINES:,} lines from one child",
        ("who", "lines/s", "of the ceiling", "CPU s per million lines", "peak RSS MiB", "lost"),
        rows,
    )


def rate() -> None:
    rows: list[Row] = []
    base = 0.0
    for kind in present():
        found = medians([capture(kind, "rate", RATE, RATE_S) for _ in range(ROUNDS)])
        base = base or found["share"]
        rows.append((kind.name, f"{found['share']:.1f} %", ratio(found["share"], base), f"{found['lost']:.0f}"))
    table(f"{RATE:,} lines/s, one write a line", ("who", "CPU of one core", "to orion's", "lost"), rows)
    found = medians([capture(Orion, "rate", 1000, RATE_S) for _ in range(ROUNDS)])
    table("Line to backend at 1,000 lines/s", ("median ms", "p99 ms"), [(f"{found['p50']:.0f}", f"{found['p99']:.0f}")])


# ---------------------------------------------------------------------------------------------------- restart


def restart_floor_ms() -> float:
    """Return how long a Python parent needs from a kill to the replacement's first act."""
    folder = fresh_folder("floor")
    child = stamping(folder, "f")
    samples = []
    try:
        process = subprocess.Popen(child.argv)
        for round_ in range(KILLS):
            wait_for_starts(child, round_ + 1)
            killed_ns = time.time_ns()
            process.kill()
            process.wait()
            process = subprocess.Popen(child.argv)
            wait_for_starts(child, round_ + 2)
            samples.append((starts(child)[-1][1] - killed_ns) / 1e6)
        process.kill()
        process.wait()
        return statistics.median(samples)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def stamping(folder: Path, name: str) -> Child:
    """Return a child that writes its pid and the time first of all."""
    own = folder / name
    own.mkdir()
    path = own / "stamp.sh"
    path.write_text(f"echo $$ $(date +%s%N) >>{own}/starts\n: >{own}/ready\nexec sleep 99999\n", encoding="ascii")
    return Child(name, own, "/bin/sh", path)


def starts(child: Child) -> list[tuple[int, int]]:
    try:
        text = (child.folder / "starts").read_text(encoding="ascii")
    except OSError:
        return []
    return [(int(line.split()[0]), int(line.split()[1])) for line in text.splitlines() if len(line.split()) == 2]


def wait_for_starts(child: Child, count: int) -> bool:
    return any(len(starts(child)) >= count for _ in until(20.0, 0.002))


def restart() -> None:
    floor = restart_floor_ms()
    rows: list[Row] = [("python: kill, wait, spawn", f"{floor:.1f}", "1.00")]
    for kind in present():
        if not kind.restarts:
            continue
        samples = []
        folder = fresh_folder(kind.name)
        peer = kind(folder)
        try:
            child = stamping(folder, "r0")
            peer.start([child])
            wait_for_starts(child, 1)
            for round_ in range(KILLS):
                settle(random.uniform(1.1, 2.1))
                pid = starts(child)[-1][0]
                killed_ns = time.time_ns()
                os.kill(pid, signal.SIGKILL)
                if not wait_for_starts(child, round_ + 2):
                    raise RuntimeError(f"{kind.name} did not restart its child")
                samples.append((starts(child)[-1][1] - killed_ns) / 1e6)
        finally:
            peer.stop()
            shutil.rmtree(folder, ignore_errors=True)
        median = statistics.median(samples)
        rows.append((kind.name, f"{median:.1f}", ratio(median, floor)))
    table("kill -9 of a child to its replacement, lowest backoff", ("who", "ms", "to the floor"), rows)


# ------------------------------------------------------------------------------------- commands, memory, idle


def cli() -> None:
    commands: dict[str, tuple[list[str], dict[str, str]]] = {
        "python3 -I -S -c pass": ([sys.executable, "-I", "-S", "-c", "pass"], {})
    }
    with contextlib.ExitStack() as stack:
        for kind in present():
            if not kind.has_status:
                continue
            peer, _, _ = stack.enter_context(running(kind, quiet(20)))
            commands[f"{kind.name} status"] = (peer.status_argv(), peer.env)
            if isinstance(peer, Orion):
                commands["orion log"] = (peer.log_argv(), peer.env)
        samples: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(CALLS):
            for name, (argv, env) in commands.items():
                taken_ms, code = run_ms(argv, env)
                if code:
                    raise RuntimeError(f"{' '.join(argv)} ended with {code}")
                samples[name].append(taken_ms)
    found = {name: statistics.median(values) for name, values in samples.items()}
    floor = found["python3 -I -S -c pass"]
    table(
        "Whole life of a command, 20 scripts",
        ("command", "ms", "to the floor"),
        [(name, f"{value:.1f}", ratio(value, floor)) for name, value in found.items()],
    )


def memory() -> None:
    rows: list[Row] = []
    for kind in present():
        cells = []
        for count in (0, 20):
            with running(kind, quiet(count)) as (_, _, pids):
                settle(3.0)
                cells.append(f"{memory_mb(pids):.0f}")
        rows.append((kind.name, *cells))
    table("RSS in MiB", ("who", "no script", "20 scripts"), rows)


def idle() -> None:
    rows: list[Row] = []
    base = 0.0
    with contextlib.ExitStack() as stack:
        up = [(kind.name, stack.enter_context(running(kind, quiet(20)))[2]) for kind in present()]
        settle(5.0)
        before = {name: (cpu_seconds(pids), switches(pids)) for name, pids in up}
        settle(IDLE_S)
        for name, pids in up:
            used = (cpu_seconds(pids) - before[name][0]) * 60 / IDLE_S
            woken = (switches(pids) - before[name][1]) / IDLE_S
            base = base or used
            rows.append((name, f"{used:.3f}", ratio(used, base), f"{woken:.1f}"))
    table("Idle with 20 quiet scripts", ("who", "CPU s per 60 s", "to orion's", "wake-ups/s"), rows)


def fleet() -> None:
    commands = {"floor": [sys.executable, "-I", "-S", "-c", "pass"]}
    samples: dict[str, list[float]] = {"floor": [], "status": []}
    with running(Orion, quiet(FLEET)) as (peer, _, pids):
        settle(5.0)
        used, woken = cpu_seconds(pids), switches(pids)
        settle(IDLE_S)
        share = (cpu_seconds(pids) - used) / IDLE_S * 100
        wakeups = (switches(pids) - woken) / IDLE_S
        commands["status"] = peer.status_argv()
        for _ in range(CALLS):
            settle(1.1)  # by then the agent has to look at the processes anew
            for name, argv in commands.items():
                taken_ms, code = run_ms(argv, peer.env)
                if code:
                    raise RuntimeError(f"{' '.join(argv)} ended with {code}")
                samples[name].append(taken_ms)
    floor, status = statistics.median(samples["floor"]), statistics.median(samples["status"])
    table(
        f"{FLEET} quiet scripts",
        ("orion status ms", "to a bare interpreter", "slowest ms", "agent's CPU of one core", "wake-ups/s"),
        [(f"{status:.1f}", ratio(status, floor), f"{max(samples['status']):.1f}", f"{share:.2f} %", f"{wakeups:.1f}")],
    )


MEASURES: dict[str, Callable[[], None]] = {
    "splitter": splitter.run,
    "cli": cli,
    "packaged": packaged.run,
    "memory": memory,
    "restart": restart,
    "burst": burst,
    "rate": rate,
    "idle": idle,
    "fleet": fleet,
}


def main() -> None:
    chosen = sys.argv[1:] or list(MEASURES)
    unknown = [name for name in chosen if name not in MEASURES]
    if unknown:
        sys.exit(f"no such measure: {', '.join(unknown)}; there are {', '.join(MEASURES)}")
    started, busy = time.monotonic(), busy_seconds()
    for name in chosen:
        MEASURES[name]()
    seconds = time.monotonic() - started
    print(f"\ncores busy with anything at all, on average: {(busy_seconds() - busy) / seconds:.2f}")


if __name__ == "__main__":
    main()
