"""Blocking work is done even where the kernel gives no further thread."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SHORT_OF_THREADS = """
import os, resource, sys, time
import gevent
from orionagent.threads import provide_threads

os.setgroups([])
os.setgid(54322)
os.setuid(54322)  # root may have as many as it likes
if sys.argv[1] == "lasting":
    provide_threads()
else:
    gevent.get_hub().threadpool.apply(int)
resource.setrlimit(resource.RLIMIT_NPROC, (1, resource.getrlimit(resource.RLIMIT_NPROC)[1]))
jobs = [gevent.get_hub().threadpool.spawn(time.sleep, 0.01) for _ in range(5)]
print(len(gevent.wait(jobs, timeout=20)), gevent.get_hub().threadpool.size)
"""


def run(pool: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SHORT_OF_THREADS, pool],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="the limit of another user's processes needs another user")
def test_work_waits_for_the_one_thread_there_is() -> None:
    assert "can't start new thread" in run("usual").stderr  # the shortage is real
    done = run("lasting")
    assert (done.returncode, done.stdout) == (0, "5 1\n")
    assert done.stderr.count("blocking work waits for the 1 there are") == 1
