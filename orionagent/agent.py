"""Owns the composition: builds every part, starts and stops them in order, and answers signals.

Knows nothing of how any part does its work.
"""

from gevent import monkey

# First of all, and not more than this: a patched os.close is deferred and hangs subprocesses; the patched signal and
# subprocess modules steal the exit statuses that we read from pidfds.
monkey.patch_all(os=False, signal=False, subprocess=False)

import gc  # noqa: E402
import logging  # noqa: E402
import os  # noqa: E402
import signal  # noqa: E402
import socket  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable, Sequence  # noqa: E402
from typing import Any  # noqa: E402

import gevent  # noqa: E402
from gevent.lock import BoundedSemaphore  # noqa: E402
from gevent.queue import SimpleQueue  # noqa: E402

from orionagent import __version__, agentlog, upgrade  # noqa: E402
from orionagent.backend import Backend  # noqa: E402
from orionagent.config import (  # noqa: E402
    AgentConfig,
    load_agent_config,
    load_scripts,
)
from orionagent.errors import ConfigError, OrionError  # noqa: E402
from orionagent.handlers import make_commands  # noqa: E402
from orionagent.ipc.server import Server  # noqa: E402
from orionagent.logs.shipper import Shipper  # noqa: E402
from orionagent.metrics.heartbeat import Heartbeat  # noqa: E402
from orionagent.metrics.sampler import Sampler  # noqa: E402
from orionagent.paths import Paths  # noqa: E402
from orionagent.ports import Services  # noqa: E402
from orionagent.rootlock import take_lock  # noqa: E402
from orionagent.scripts.cgroup import MemoryKills, find_own_folder, find_subtree  # noqa: E402
from orionagent.scripts.handover import Descriptors, Inherited, pack_state  # noqa: E402
from orionagent.scripts.kernel import become_subreaper, open_signals, read_signals  # noqa: E402
from orionagent.scripts.redact import Redactor  # noqa: E402
from orionagent.scripts.remote import carry_out  # noqa: E402
from orionagent.scripts.supervisor import Supervisor  # noqa: E402
from orionagent.scripts.tree import read_boot_id  # noqa: E402
from orionagent.sourcetokens import SourceTokens  # noqa: E402
from orionagent.systemd import Notifier, watchdog_period_s  # noqa: E402
from orionagent.tasks import TaskFailed, TaskGroup  # noqa: E402
from orionagent.threads import provide_threads  # noqa: E402

log = logging.getLogger(__name__)

HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
FLUSH_S = 5.0
REAP_PAUSE_S = 0.1
REPLY_S = 0.05


class Agent:
    """The running daemon. Sole writer of the start and stop order."""

    def __init__(self, paths: Paths) -> None:
        self.paths = paths
        self.started = time.monotonic()
        self.config_error: str | None = None
        self._ending = False
        self._reaping = False
        self._reload_turn = BoundedSemaphore(1)
        self._events: SimpleQueue[int | TaskFailed] = SimpleQueue()
        self._tasks = TaskGroup("agent", self._events.put)
        self._notifier = Notifier.from_environment()
        self._inherited = Inherited.from_environment(upgrade.inherited_descriptors())
        self._kept: dict[str, int] = {}
        self._fingerprint = upgrade.fingerprint()
        self._tokens = SourceTokens(self._folder_of)
        kept = self._inherited.take("lock")
        self._lock = take_lock(paths) if kept is None else kept
        self.config = self._load_config()
        self.hostname = self.config.hostname or socket.gethostname()

    # Before anything runs

    def _load_config(self) -> AgentConfig:
        try:
            return load_agent_config(self.paths)
        except ConfigError as error:
            self._note_config_error(error)
            return AgentConfig()

    def _take_back(self) -> None:
        """Make the scripts known, by the definitions that ran last where the file is unusable."""
        try:
            self.supervisor.take_back(load_scripts(self.paths))
        except ConfigError as error:
            self._note_config_error(error)
            self.supervisor.take_back(self.supervisor.last_known())

    def _note_config_error(self, error: ConfigError) -> None:
        self.config_error = error.message
        log.error("%s", error.message)

    # The life of the daemon

    def run(self) -> int:
        """Build, start, wait, stop; return the exit status."""
        signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
        self._signal_fd = open_signals(HANDLED)
        self._signals = gevent.get_hub().loop.io(self._signal_fd, 1)
        self._signals.start(self._note_signals)
        become_subreaper()
        provide_threads()
        self._build()
        self._start()
        try:
            status = self._wait()
        finally:
            self._signals.stop()
        if status == 0:
            self._stop()
        else:
            self._abandon()
        return status

    def _note_signals(self) -> None:
        for number in read_signals(self._signal_fd):
            if number != signal.SIGCHLD:
                self._events.put(number)
            elif not self._reaping:
                self._reaping = True
                self._tasks.spawn("reap", self._reap_soon)

    def _build(self) -> None:
        boot_id = read_boot_id()
        self.backend = Backend(self.config, self.hostname)
        self.redactor = Redactor(self.config.redact)
        self.shipper = Shipper(
            self.paths,
            self.config,
            self.backend,
            boot_id=boot_id,
            token_for=self._tokens.find,
        )
        self.supervisor = Supervisor(
            self.paths,
            hostname=self.hostname,
            emit=self.shipper.offer,
            alert=self.shipper.offer_alert,
            offsets=self.shipper.offsets,
            redactor=self.redactor,
            descriptors=Descriptors(take=self._inherited.take, keep=self._keep, forget=self._forget),
            on_failure=self._events.put,
            subtree=find_subtree(),
            memory_kills=MemoryKills(find_own_folder(), time.monotonic),
        )
        self.heartbeat = Heartbeat(
            Sampler(),
            self.backend if self.config.token else None,
            hostname=self.hostname,
            boot_id=boot_id,
            version=__version__,
            interval_ms=self.config.heartbeatInterval,
            scripts=self.supervisor.reports,
            buffer=self.shipper.report,
            on_command=lambda command: carry_out(self.supervisor, command),
            on_success=self.shipper.wake,
            remote_commands=self.config.remoteCommands,
            on_failure=self._events.put,
        )
        self.server = Server(
            self.paths.socket,
            make_commands(self._services()),
            owner_uid=os.geteuid(),
            inherited_fd=self._inherited.take("ipc"),
            on_failure=self._events.put,
        )

    def _services(self) -> Services:
        return Services(
            supervisor=self.supervisor,
            shipper=self.shipper,
            heartbeat=self.heartbeat,
            backend=self.backend,
            agent=self,
            redact=self.redactor.redact,
        )

    def _start(self) -> None:
        self.shipper.start()
        # Before anything that waits: a signal to stop must find what an earlier agent left running.
        self._take_back()
        self.server.start()
        self._tasks.spawn("start scripts", self._start_scripts)
        self.heartbeat.start()
        period_s = watchdog_period_s()
        if period_s is not None:
            self._tasks.spawn("watchdog", self._feed_watchdog, period_s / 2)
        gc.collect()
        gc.freeze()
        self._notifier.ready(f"version {__version__}")
        log.info("orion agent %s runs as pid %d for %s", __version__, os.getpid(), self.paths.root)

    def _start_scripts(self) -> None:
        self.supervisor.start_rest()
        for name in self._inherited.close_rest():
            self._notifier.remove(name)

    def _feed_watchdog(self, pause_s: float) -> None:
        while True:
            self._notifier.watchdog()
            gevent.sleep(pause_s)

    def _wait(self) -> int:
        """Answer signals until one of them, or the death of a part, ends the daemon; return the exit status."""
        while True:
            event = self._events.get()
            if isinstance(event, TaskFailed):
                log.critical("%s: the agent ends, to be started anew", event)
                return 1
            if event in (signal.SIGTERM, signal.SIGINT):
                log.info("%s: stopping", signal.Signals(event).name)
                self._ending = True
                return 0
            if event == signal.SIGHUP:
                self._tasks.spawn("reload", self._reload_on_signal)

    def _reap_soon(self) -> None:
        """Let many ends make one look."""
        gevent.sleep(REAP_PAUSE_S)
        self._reaping = False
        try:
            self.supervisor.reap()
        except OSError as error:  # no descriptor is free: the next end makes the next look
            log.warning("cannot look for orphans: %s", error)

    def _stop(self) -> None:
        self._notifier.stopping()
        limit_s = self.supervisor.stop_limit_s() + FLUSH_S
        self._notifier.extend_timeout(limit_s + 1)
        self._tasks.stop()
        stopper = gevent.spawn(self.supervisor.stop_all)
        stopper.join(timeout=limit_s - FLUSH_S + 1)
        if not stopper.ready():
            log.error("some scripts did not end in time: %s", self.supervisor)
            stopper.kill()
        self.supervisor.let_go(close=True)
        self.supervisor.forget_state()
        self.heartbeat.stop()
        self.shipper.stop(FLUSH_S)
        self.server.stop()
        self.backend.close()
        log.info("stopped")

    def _abandon(self) -> None:
        """End after the death of a part and leave the applications alone: the next start takes them back."""
        steps: Sequence[Callable[[], object]] = (
            self._tasks.stop,
            lambda: self.supervisor.let_go(close=True),
            self.heartbeat.abandon,
            lambda: self.shipper.stop(0.0),
            self.server.stop,
            self.backend.close,
        )
        for act in steps:
            try:
                act()
            except Exception:  # one part is broken already: the others shall end in order all the same
                log.exception("cannot end in order")

    # What parts ask of the whole

    def _folder_of(self, source: str) -> str | None:
        return self.supervisor.cwd_of_source(source)

    def _keep(self, name: str, fd: int) -> None:
        self._kept[name] = fd
        self._notifier.store(name, [fd])

    def _forget(self, name: str) -> None:
        if self._kept.pop(name, None) is not None:
            self._notifier.remove(name)

    def _reload_on_signal(self) -> None:
        try:
            self.reload()
        except OrionError as error:
            log.error("%s", error.message)

    def reload(self) -> dict[str, Any]:
        """Take up changed files; replace this program when another version is installed.

        Raises:
            ConfigError: a file is unusable; the last good configuration stays in force.
            OrionError: the installed program does not start; this one stays.
        """
        self._notifier.reloading()
        try:
            if upgrade.fingerprint() != self._fingerprint:
                version = upgrade.check_starts(self.paths.root)
                log.info("replacing this program by version %s", version)
                self._tasks.spawn("replace", self._replace)
                return {"changed": [], "added": [], "removed": [], "replacedBy": version}
            # One at a time: one that fails puts back what was in force before it, not before another one.
            with self._reload_turn:
                return self._reload_files()
        finally:
            self._notifier.ready()

    def _reload_files(self) -> dict[str, Any]:
        try:
            config = load_agent_config(self.paths)
            # Before the scripts follow, which may take long: what should not be seen is not to wait for them.
            self.redactor.reconfigure(config.redact)
            changes: dict[str, Any] = self.supervisor.reload()
        except ConfigError as error:
            self.redactor.reconfigure(self.config.redact)
            self._note_config_error(error)
            raise
        self.config_error = None
        self._tokens.forget()
        if config != self.config:
            before, self.config = self.config, config
            self.hostname = config.hostname or socket.gethostname()
            self.supervisor.rename_host(self.hostname)
            self.backend.reconfigure(config, self.hostname)
            self.heartbeat.reconfigure(
                backend=self.backend if config.token else None,
                hostname=self.hostname,
                interval_ms=config.heartbeatInterval,
                remote_commands=config.remoteCommands,
                other_backend=_addressee(config) != _addressee(before),
            )
            changes = {**changes, "config": True}
        # Also when nothing changed: a refused token or route is tried anew on reload.
        self.shipper.reconfigure(config)
        return changes

    def _replace(self) -> None:
        """Hand everything to the installed program and become it."""
        # The reply to `orion reload` must leave first.
        gevent.sleep(REPLY_S)
        # From here on signals wait in the kernel for the new image; one that was taken already is obeyed here.
        self._signals.stop()
        if self._ending or not self._events.empty():
            self._signals.start(self._note_signals)
            log.warning("not replaced: a signal came first; reload again")
            return
        self.heartbeat.abandon()
        listener = self.server.detach()
        self.supervisor.let_go(close=False)
        self.shipper.stop(0.0)
        state = pack_state(self.supervisor.to_record())
        descriptors = {**self._kept, "lock": self._lock, "ipc": listener, "state": state}
        upgrade.replace_image(descriptors, self.paths.root)


def _addressee(config: AgentConfig) -> tuple[str | None, ...]:
    """Return what decides whose commands the backend offers."""
    return config.apiUrl, config.token, config.project


def run(paths: Paths, foreground: bool) -> int:
    """Run the daemon until a signal ends it; return the exit status.

    Raises:
        AlreadyRunning: another daemon runs for this root.
    """
    agentlog.configure(paths, to_terminal=foreground)
    if os.environ.get(upgrade.SELF_TEST_VARIABLE):
        load_agent_config(paths)
        load_scripts(paths)
        sys.stdout.write(f"{__version__}\n")
        return 0
    return Agent(paths).run()
