"""Measures the way from batches to a backend: lines a second and CPU seconds per million lines.

    python -m bench.delivery [million lines]

The sink is a process of its own that reads requests and answers 204 without looking at them.
"""

from gevent import monkey

monkey.patch_all(os=False, signal=False, subprocess=False)

import os  # noqa: E402
import resource  # noqa: E402
import select  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402

import gevent  # noqa: E402

from orionagent.backend import Backend  # noqa: E402
from orionagent.config import AgentConfig  # noqa: E402
from orionagent.logs.buffer import Buffer  # noqa: E402
from orionagent.logs.shipper import Shipper  # noqa: E402
from orionagent.paths import Paths  # noqa: E402
from orionagent.wire import Batch  # noqa: E402

LINES = 2184
"""Lines of 120 bytes in 256 KiB, what a pump reads at once."""

SINK = r"""
import re, socket
listening = socket.create_server(("127.0.0.1", 0))
print(listening.getsockname()[1], flush=True)
connection, _ = listening.accept()
file = connection.makefile("rb", buffering=1 << 20)
scratch = bytearray(4 << 20)
while True:
    length = 0
    while (line := file.readline().strip()) != b"":
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    if not length:
        break
    view = memoryview(scratch)
    while length:
        length -= file.readinto(view[:length])
    connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
"""


def make_batch() -> Batch:
    """Return what one read of a pipe full of 120-byte lines becomes."""
    return Batch(
        source="api",
        stream="stdout",
        timestamp="2026-01-02T03:04:05.006Z",
        messages=["x" * 119] * LINES,
        levels="info",
        offset=1,
    )


def measure_append(paths: Paths, lines: int) -> None:
    """Print what appending alone costs, journal included."""
    buffer = Buffer(paths.buffer, boot_id="b", max_entries=10_000, max_bytes=64 << 20)
    buffer.open()
    batch = make_batch()
    began, cpu = time.monotonic(), time.process_time()
    for _ in range(lines // LINES):
        buffer.append(batch)
        if buffer.custody.needs_compaction:
            buffer.custody.compact()
    report("append, backend down", lines, time.monotonic() - began, time.process_time() - cpu)
    buffer.close()
    os.unlink(paths.buffer)


def measure_delivery(paths: Paths, lines: int) -> None:
    """Print what the whole way to a backend on this machine costs."""
    sink = subprocess.Popen([sys.executable, "-I", "-S", "-c", SINK], stdout=subprocess.PIPE, text=True)
    assert sink.stdout is not None
    select.select([sink.stdout], [], [], 10)
    config = AgentConfig(token="t", apiUrl=f"http://127.0.0.1:{sink.stdout.readline().strip()}")
    backend = Backend(config, "bench")
    shipper = Shipper(paths, config, backend, boot_id="b", token_for=lambda _: None)
    shipper.start()
    batch = make_batch()
    began, cpu = time.monotonic(), time.process_time()
    for _ in range(lines // LINES):
        shipper.offer(batch)
        gevent.sleep(0)
    while shipper.report().entries:
        gevent.sleep(0.01)
    report("offer to acknowledgement", lines, time.monotonic() - began, time.process_time() - cpu)
    assert shipper.report().droppedTotal == 0
    shipper.stop()
    backend.close()
    sink.wait()


def report(what: str, lines: int, took_s: float, cpu_s: float) -> None:
    """Print one line of figures."""
    rss_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{what}: {lines / took_s:,.0f} lines/s, {cpu_s / lines * 1e6:.2f} CPU s per million lines, "
        f"peak RSS {rss_mib:.0f} MiB"
    )


def main() -> None:
    """Run both."""
    lines = int(float(sys.argv[1] if len(sys.argv) > 1 else 1) * 1e6)
    with tempfile.TemporaryDirectory(prefix="or-") as root:
        paths = Paths(root)
        os.makedirs(paths.etc)
        measure_append(paths, lines)
        measure_delivery(paths, lines)


if __name__ == "__main__":
    main()
