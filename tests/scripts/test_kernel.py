"""The Linux calls that are made past Python, on real processes and files."""

import os
import signal
import subprocess

import pytest

from orionagent.scripts.kernel import P_PIDFD, create_memfd, open_pidfd, send_signal


def test_a_process_is_signalled_and_reaped_by_its_descriptor() -> None:
    with subprocess.Popen(["sleep", "1000"]) as child:
        pidfd = open_pidfd(child.pid)
        assert not os.get_inheritable(pidfd)
        assert send_signal(pidfd, signal.SIGTERM)
        info = os.waitid(P_PIDFD, pidfd, os.WEXITED)
        assert info is not None
        assert (info.si_pid, info.si_status) == (child.pid, signal.SIGTERM)
        assert not send_signal(pidfd, signal.SIGTERM)
        os.close(pidfd)


def test_a_signal_that_does_not_exist_is_an_error() -> None:
    pidfd = open_pidfd(os.getpid())
    with pytest.raises(OSError, match="pidfd_send_signal"):
        send_signal(pidfd, 4711)
    os.close(pidfd)


def test_a_process_that_is_gone_has_no_descriptor() -> None:
    with subprocess.Popen(["true"]) as child:
        child.wait()
    with pytest.raises(ProcessLookupError):
        open_pidfd(child.pid)


def test_a_file_in_memory_can_be_written_and_read_and_is_not_inherited() -> None:
    fd = create_memfd("test")
    os.write(fd, b"kept")
    assert os.pread(fd, 10, 0) == b"kept"
    assert not os.get_inheritable(fd)
    os.close(fd)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_process_that_is_not_ours_to_signal_is_left_alone() -> None:
    child = os.fork()
    if child == 0:
        os.setuid(65534)
        os._exit(int(send_signal(open_pidfd(1), signal.SIGTERM)))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
