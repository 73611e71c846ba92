"""Owns the moment between fork and exec: a child that waits until its record is written, then becomes the program.

Knows nothing of what happens to the child afterwards.
"""

import _signal
import contextlib
import grp
import os
import pwd
import resource
import shlex
import signal
import struct
from collections.abc import Callable, Mapping

import msgspec

from orionagent.config import ScriptConfig, read_env_file
from orionagent.errors import ConfigError, SpawnError
from orionagent.scripts.tree import AGENT_VARIABLE, NAME_VARIABLE

SHELL_SYNTAX = frozenset("|&;<>()$`\\\"'*?[]#~=%{}!\n")
SHELL_WORDS = frozenset(
    (
        *(".", ":", "alias", "bg", "break", "case", "cd", "command", "continue", "eval", "exec", "exit", "export"),
        *("fc", "fg", "for", "getopts", "hash", "if", "jobs", "read", "readonly", "return", "set", "shift", "times"),
        *("trap", "type", "ulimit", "umask", "unalias", "unset", "until", "wait", "while"),
    )
)
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_UMASK = 0o022
DEFAULT_NOFILE = 1024
TRANSIENT = frozenset({11, 12, 23, 24})  # EAGAIN, ENOMEM, ENFILE, EMFILE
# None: no handler that Python knows of, as for the two numbers that the C library keeps for itself.
UNCHANGED = (_signal.SIG_DFL, None)
STAGES = ("set up the process", "change to the folder", "become the user", "execute the program")


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Whom a script runs as; `groups` None means: keep the agent's."""

    uid: int
    gid: int
    groups: tuple[int, ...] | None
    user: str
    home: str
    shell: str


class SpawnPlan(msgspec.Struct, frozen=True, kw_only=True):
    """All that the child needs, worked out before the fork: the child itself only makes system calls."""

    argv: tuple[str, ...]
    program: str
    environment: Mapping[str, str]
    cwd: str
    identity: Identity
    umask: int
    nice: int
    limits: tuple[tuple[int, int], ...]
    signals: tuple[int, ...]


def split_command(command: str) -> tuple[str, ...]:
    """Return the words to execute: the command's own when it is one simple command, else a shell's.

    Executing a simple command directly makes pid, signals and exit status the application's own.
    """
    words = command.split()
    plain_quotes = not SHELL_SYNTAX & (set(command) - set("\"'"))
    if words and plain_quotes and words[0] not in SHELL_WORDS:
        try:
            return tuple(shlex.split(command))
        except ValueError:
            pass  # an unclosed quote: the shell shall say so in its own words
    return ("/bin/sh", "-c", command)


def find_identity(config: ScriptConfig) -> Identity:
    """Look up whom a script runs as.

    Raises:
        SpawnError: no such user or group, or the agent may not become it.
    """
    try:
        entry = pwd.getpwnam(config.user) if config.user else pwd.getpwuid(os.geteuid())
    except KeyError as error:
        if config.user:
            raise SpawnError(
                f"cannot run {config.name}: no user {config.user!r}; create it or change `user`"
            ) from error
        entry = pwd.struct_passwd(("", "x", os.geteuid(), os.getegid(), "", "/", "/bin/sh"))
    gid = entry.pw_gid
    if config.group:
        try:
            gid = grp.getgrnam(config.group).gr_gid
        except KeyError as error:
            raise SpawnError(
                f"cannot run {config.name}: no group {config.group!r}; create it or change `group`"
            ) from error
    changes = entry.pw_uid != os.geteuid() or gid != os.getegid()
    if changes and os.geteuid() != 0:
        raise SpawnError(f"cannot run {config.name} as {config.user or config.group!r}: the agent is not root")
    groups = tuple(os.getgrouplist(entry.pw_name, gid)) if os.geteuid() == 0 and entry.pw_name else None
    return Identity(
        uid=entry.pw_uid, gid=gid, groups=groups, user=entry.pw_name, home=entry.pw_dir, shell=entry.pw_shell
    )


def make_environment(config: ScriptConfig, identity: Identity, agent: str) -> dict[str, str]:
    """Return the script's whole environment: the user's, then `envFile`, then `env`, nothing of the agent's."""
    environment = {
        "PATH": DEFAULT_PATH,
        "HOME": identity.home,
        "USER": identity.user,
        "LOGNAME": identity.user,
        "SHELL": identity.shell or "/bin/sh",
        "LANG": os.environ.get("LANG") or "C.UTF-8",
    }
    if config.envFile:
        try:
            environment.update(read_env_file(os.path.join(config.cwd or "/", config.envFile)))
        except ConfigError as error:
            raise SpawnError(f"cannot run {config.name}: {error.message}") from error
    environment.update(config.env)
    environment[NAME_VARIABLE] = config.name
    environment[AGENT_VARIABLE] = agent
    return environment


def find_program(config: ScriptConfig, word: str, path: str, cwd: str) -> str:
    """Return the file that `word` names, looked for as a shell does."""
    if "/" in word:
        return os.path.join(cwd, word)
    denied = None
    for folder in path.split(":"):
        candidate = os.path.join(cwd, folder, word)
        if os.path.isfile(candidate):
            if os.access(candidate, os.X_OK):
                return candidate
            denied = denied or candidate
    if denied:
        raise SpawnError(f"cannot run {config.name}: {denied} is not executable; chmod +x it")
    raise SpawnError(f"cannot run {config.name}: no command {word!r} in PATH ({path}); install it or give its path")


def make_plan(config: ScriptConfig, agent: str) -> SpawnPlan:
    """Work out everything a run of this script needs.

    Raises:
        SpawnError: user, group, environment file or command cannot be found.
    """
    try:
        identity = find_identity(config)
        environment = make_environment(config, identity, agent)
    except OSError as error:
        raise to_spawn_error(config.name, "look up what it needs", error) from error
    cwd = config.cwd or identity.home or "/"
    argv = split_command(config.command)
    program = find_program(config, argv[0], environment["PATH"], cwd)
    nofile = DEFAULT_NOFILE
    limits = []
    if config.limits is not None:
        nofile = config.limits.nofile or nofile
        if config.limits.core is not None:
            limits.append((resource.RLIMIT_CORE, config.limits.core))
        # "as" is a keyword of Python, hence the underscore of the struct's attribute.
        if config.limits.as_ is not None:
            limits.append((resource.RLIMIT_AS, config.limits.as_))
    limits.append((resource.RLIMIT_NOFILE, nofile))
    return SpawnPlan(
        argv=argv,
        program=program,
        environment=environment,
        cwd=cwd,
        identity=identity,
        umask=int(config.umask, 8) if config.umask is not None else DEFAULT_UMASK,
        nice=config.nice or 0,
        limits=tuple(limits),
        signals=_find_changed_signals(),
    )


def _find_changed_signals() -> tuple[int, ...]:
    """Return the signals that this process ignores or handles: a program starts with the default of each."""
    return tuple(number for number in range(1, signal.NSIG) if _signal.getsignal(number) not in UNCHANGED)


def spawn(
    config: ScriptConfig,
    plan: SpawnPlan,
    stdout: int,
    stderr: int,
    record: Callable[[int], None],
    cgroup_entry: int | None = None,
) -> int:
    """Fork, let `record(pid)` write the child down, then let the child execute the program; return its pid.

    Blocks for the few milliseconds until the exec has happened or failed. The child gets ready while `record` runs
    and then waits; when this process dies meanwhile, it sees the gate close and ends: no unrecorded instance.
    `cgroup_entry` is an open cgroup.procs that the child goes through while it is still the agent's user.

    Raises:
        SpawnError: with the stage and the kernel's reason; `code` "spawn-transient" when the machine was only
            short of something (processes, memory, descriptors).
    """
    try:
        gate_read, gate_write = os.pipe2(os.O_CLOEXEC)
    except OSError as error:
        raise _spawn_error(config, plan, 0, error.errno or 0) from error
    try:
        report_read, report_write = os.pipe2(os.O_CLOEXEC)
    except OSError as error:
        os.close(gate_read)
        os.close(gate_write)
        raise _spawn_error(config, plan, 0, error.errno or 0) from error
    try:
        pid = os.fork()
    except OSError as error:
        for fd in (gate_read, gate_write, report_read, report_write):
            os.close(fd)
        raise _spawn_error(config, plan, 0, error.errno or 0) from error
    if pid == 0:
        os.close(gate_write)
        _become(plan, stdout, stderr, gate_read, report_write, cgroup_entry)
    os.close(gate_read)
    os.close(report_write)
    try:
        record(pid)
        with contextlib.suppress(BrokenPipeError):  # it could not get ready: its report says why
            os.write(gate_write, b"!")
    finally:
        os.close(gate_write)
        report = os.read(report_read, 8)
        os.close(report_read)
    if report:
        stage, errno = struct.unpack("ii", report)
        os.waitid(os.P_PID, pid, os.WEXITED)
        raise _spawn_error(config, plan, stage, errno)
    return pid


def _spawn_error(config: ScriptConfig, plan: SpawnPlan, stage: int, errno: int) -> SpawnError:
    thing = (config.name, plan.cwd, plan.identity.user, plan.program)[stage]
    code = "spawn-transient" if errno in TRANSIENT else "spawn"
    return SpawnError(f"cannot run {config.name}: cannot {STAGES[stage]} ({thing}): {os.strerror(errno)}", code=code)


def to_spawn_error(name: str, act: str, error: OSError) -> SpawnError:
    """Translate a refusal of the kernel; `code` is "spawn-transient" when the machine was only short of something."""
    code = "spawn-transient" if error.errno in TRANSIENT else "spawn"
    return SpawnError(f"cannot run {name}: cannot {act}: {error.strerror or error}", code=code)


def _close_if_open(fd: int) -> None:
    try:
        os.close(fd)
    except OSError:
        return  # the listing's own descriptor is gone already


def _enter_cgroup(entry: int) -> None:
    try:
        os.write(entry, b"0")
    except OSError:
        return  # the cgroup went away: the script runs all the same, found by /proc only


def _become(plan: SpawnPlan, stdout: int, stderr: int, gate: int, report: int, cgroup_entry: int | None) -> None:
    """Turn the forked child into the program; never returns."""
    stage = 0
    try:
        os.setsid()
        if cgroup_entry is not None:
            _enter_cgroup(cgroup_entry)  # may take a grace period of the kernel
        null = os.open("/dev/null", os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)
        for name in os.listdir("/proc/self/fd"):
            if int(name) > 2 and int(name) not in (gate, report):
                _close_if_open(int(name))
        for number in plan.signals:
            _signal.signal(number, _signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        for limit, wanted in plan.limits:
            value = wanted
            hard = resource.getrlimit(limit)[1]
            if hard != resource.RLIM_INFINITY and value > hard:
                value, hard = (value, value) if os.geteuid() == 0 else (hard, hard)
            resource.setrlimit(limit, (value, hard))
        os.umask(plan.umask)
        if plan.nice:
            os.nice(plan.nice)
        stage = 2
        identity = plan.identity
        if identity.groups is not None:
            os.setgroups(identity.groups)
        if identity.gid != os.getegid():
            os.setgid(identity.gid)
        if identity.uid != os.geteuid():
            os.setuid(identity.uid)
        stage = 1
        os.chdir(plan.cwd)
        if os.read(gate, 1) != b"!":
            os._exit(0)  # the agent died before it could write this child down
        stage = 3
        os.execve(plan.program, plan.argv, dict(plan.environment))
    except OSError as error:
        os.write(report, struct.pack("ii", stage, error.errno or 0))
    except BaseException:
        os.write(report, struct.pack("ii", stage, 22))
    finally:
        os._exit(127)
