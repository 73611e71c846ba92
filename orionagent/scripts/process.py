"""Owns `Process`: one run of a script from its first system call to the end of the last process of its tree.

Knows nothing of why it runs or what follows its end.
"""

import errno
import os
import signal
import time
from collections.abc import Callable
from typing import Any, TypeVar

import gevent
from gevent.event import Event

from orionagent.scripts.cgroup import Leaf
from orionagent.scripts.endings import Exit
from orionagent.scripts.kernel import P_PIDFD, exit_status_of_stranger, open_pidfd, send_signal
from orionagent.scripts.tree import Census, Stat, is_alive, read_children, read_stat

SHORTAGE_PAUSE_S = 0.1
STUCK_AFTER_KILL_S = 2.0
STRANGER_RETRY_S = (0.0, 0.002, 0.01, 0.05, 0.2, 0.5)

Found = TypeVar("Found")


def from_wait_status(status: int) -> Exit:
    """Translate the status word of wait(2)."""
    if os.WIFSIGNALED(status):
        return Exit(signal=os.WTERMSIG(status), core_dumped=os.WCOREDUMP(status))
    return Exit(code=os.WEXITSTATUS(status))


class Process:
    """One run's main process and tree. Sole reaper of the main process.

    `pidfd` names the process even when its number is used again; every signal goes through one.
    """

    def __init__(
        self,
        *,
        pid: int,
        pidfd: int,
        start_ticks: int,
        script: str,
        agent: str,
        is_child: bool,
        leaf: Leaf,
        on_exit: Callable[[Exit], None],
    ) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self.start_ticks = start_ticks
        self.script = script
        self.exit: Exit | None = None
        self._agent = agent
        self._is_child = is_child
        self._leaf = leaf
        self._on_exit = on_exit
        self._attempts = 0
        self._session_over = False
        self._timer: Any = None
        self._watcher = gevent.get_hub().loop.io(pidfd, 1)
        self._watcher.start(self._readable)

    def __repr__(self) -> str:
        return f"Process({self.script!r}, pid={self.pid}, exit={self.exit})"

    def look(self) -> bool:
        """Reap the main process if it has ended, ahead of word of that; tell whether its end is known."""
        if self.exit is None:
            found = self._reap()
            if found is not None and found.is_known:
                self._watcher.stop()
                self.exit = found
                self._on_exit(found)
        return self.exit is not None

    def _readable(self) -> None:
        if self.exit is not None:
            return
        # The descriptor stays readable from now on: one look is enough.
        self._watcher.stop()
        found = self._reap()
        if found is None:
            delay_s = STRANGER_RETRY_S[self._attempts]
            self._attempts += 1
            self._timer = gevent.get_hub().loop.timer(delay_s)
            self._timer.start(self._readable)
            return
        self.exit = found
        self._on_exit(found)

    def _reap(self) -> Exit | None:
        """Return how the main process ended, None when its real parent has yet to reap it."""
        if self._is_child:
            try:
                info = os.waitid(P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG)
            except ChildProcessError:
                info = None
            if info is not None:
                if info.si_code == os.CLD_EXITED:
                    return Exit(code=info.si_status)
                return Exit(signal=info.si_status, core_dumped=info.si_code == os.CLD_DUMPED)
        status = exit_status_of_stranger(self.pidfd)
        if status is not None:
            return from_wait_status(status)
        return Exit() if self._attempts >= len(STRANGER_RETRY_S) - 1 else None

    def members(self, census: Census | None = None) -> list[Stat]:
        """Return the living processes of this run's tree; looks at all of /proc unless that was done just now.

        A number is not used again while it names a session. So once nothing of ours is left in the session, or
        somebody else bears the number, both number and session are a stranger's for good.
        """
        if census is None:
            census = _patiently(lambda: Census.take(self._agent))
        # Read after /proc, so that what was forked during that look is found as well.
        grouped = self._leaf.pids()
        census = census.with_also(grouped)
        leader = census.processes.get(self.pid)
        if leader is not None and leader.start_ticks != self.start_ticks:
            self._session_over = True
        if self.exit is not None and self.pid not in census.sessions:
            self._session_over = True
        return census.members(self.script, main_pid=None if self._session_over else self.pid, grouped=grouped)

    def has_survivors(self, mains: set[int]) -> bool:
        """Tell whether the tree outlives its main process, cheaply where the kernel helps.

        As subreaper we inherit the orphans of our own children: usually a look at our list of children tells,
        where `mains` are the main processes of all scripts. A group that still has members takes signal 0.
        """
        quiet = self._is_child and not self._leaf.is_populated() and not self._group_lives()
        if quiet and not _patiently(lambda: _has_other_children(mains)):
            return False
        return bool(self.members())

    def _group_lives(self) -> bool:
        try:
            os.killpg(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True

    def signal_tree(self, number: int) -> list[int]:
        """Signal every living process of the tree; return pidfds of those (the caller closes them)."""
        if number == signal.SIGKILL:
            self._leaf.kill()
        pidfds = []
        for stat in self.members():
            try:
                pidfd = _patiently(lambda pid=stat.pid: open_pidfd(pid))  # type: ignore[misc]
            except ProcessLookupError:
                continue
            again = _patiently(lambda pid=stat.pid: read_stat(pid))  # type: ignore[misc]
            if again is None or again.start_ticks != stat.start_ticks:
                os.close(pidfd)  # the number was used again between the look and the open
                continue
            send_signal(pidfd, number)
            if again.state == "T" and number != signal.SIGKILL:
                send_signal(pidfd, signal.SIGCONT)  # a stopped process would never see it
            pidfds.append(pidfd)
        return pidfds

    def end_tree(self, number: int, timeout_s: float, on_stuck: Callable[[list[int]], None]) -> bool:
        """Signal the tree, KILL it after `timeout_s`, return when it is empty.

        Blocks as long as processes live. Returns whether KILL was needed. `on_stuck` hears of pids that KILL did
        not end within two seconds (uninterruptible sleep); they are waited for all the same.
        """
        # Not the loop's now(): that is the wall clock, which may be set while we wait.
        wait_until = time.monotonic() + timeout_s
        pidfds = self.signal_tree(number)
        killed = number == signal.SIGKILL
        told = False
        try:
            while True:
                gone = self._wait_for(pidfds, wait_until)
                if gone and not (survivors := self.members()):
                    return killed
                now = time.monotonic()
                if not killed and now >= wait_until:
                    killed = True
                    wait_until = now + STUCK_AFTER_KILL_S
                elif killed and now >= wait_until and not told:
                    told = True
                    survivors = self.members()
                    on_stuck([stat.pid for stat in survivors])
                if killed or gone:
                    # New members appear while others are being signalled: look again.
                    _close_all(pidfds)
                    pidfds = self.signal_tree(signal.SIGKILL if killed else number)
                    if told:
                        gevent.sleep(1.0)
        finally:
            _close_all(pidfds)

    def _wait_for(self, pidfds: list[int], until: float) -> bool:
        """Wait for the end of all; False at the deadline."""
        loop = gevent.get_hub().loop
        changed = Event()
        watchers = [loop.io(pidfd, 1) for pidfd in pidfds]
        pending = set(range(len(watchers)))

        def ended(index: int) -> None:
            watchers[index].stop()
            pending.discard(index)
            if not pending:
                changed.set()

        for index, watcher in enumerate(watchers):
            watcher.start(ended, index)
        try:
            return not pending or changed.wait(max(0.0, until - time.monotonic()))
        finally:
            for watcher in watchers:
                watcher.stop()
                watcher.close()

    def look_away(self) -> None:
        """Leave the end to be seen by the next image of this process."""
        if self._timer is not None:
            self._timer.stop()
        self._watcher.stop()

    def close(self) -> None:
        """Stop watching; the process itself is left alone."""
        self.look_away()
        self._watcher.close()
        os.close(self.pidfd)


def _has_other_children(mains: set[int]) -> bool:
    strangers = (pid for pid in read_children(os.getpid()) if pid not in mains)
    return any(is_alive(read_stat(pid)) for pid in strangers)


def _patiently(look: Callable[[], Found]) -> Found:
    """Do what needs a descriptor for a moment; wait while there is none, for nothing can be decided without it."""
    while True:
        try:
            return look()
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
        gevent.sleep(SHORTAGE_PAUSE_S)


def _close_all(descriptors: list[int]) -> None:
    for fd in descriptors:
        os.close(fd)
    descriptors.clear()


def reap_orphans(keep: set[int]) -> None:
    """Reap ended processes that were left to us as subreaper; those in `keep` have their own reaper."""
    for pid in read_children(os.getpid()):
        if pid in keep:
            continue
        stat = read_stat(pid)
        if stat is not None and stat.state == "Z":
            try:
                os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)
            except ChildProcessError:
                continue
