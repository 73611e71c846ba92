"""Owns the life of a script as a table: every (phase, event) pair has a decided outcome.

Knows nothing of processes, timers or clocks: `step` is a pure function, its actions are carried out elsewhere.

The rules behind the table:

- An exit nobody asked for with a status other than 0 is a crash: an alert, the rest of the tree is ended, and a
  restart after the backoff unless this was the `maxRestarts`-th crash in a row or `autoRestart` is off.
- Exit 0 nobody asked for is `stopped`; processes left behind stay until `stop` or `start`.
- No process is started while another one of the script's tree is alive: starting then means stopping first.
- A run of `minUptime` or a start by somebody sets the crashes in a row to zero.
"""

from enum import StrEnum
from typing import TypeAlias, assert_never

import msgspec

from orionagent.backoff import restart_delay_ms
from orionagent.config import ScriptConfig


class Phase(StrEnum):
    """Where a script is in its life."""

    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    BACKOFF = "backoff"
    STOPPING = "stopping"
    CRASHED = "crashed"


REPORTED = {
    Phase.STOPPED: "stopped",
    Phase.STARTING: "running",
    Phase.RUNNING: "running",
    Phase.BACKOFF: "crashed",
    Phase.STOPPING: "running",
    Phase.CRASHED: "crashed",
}
"""Phase to the state that a heartbeat reports."""


class Life(msgspec.Struct, frozen=True, kw_only=True):
    """What the table decides on.

    `tree` is true while processes of the last run may be alive; `again` means start once the tree is gone;
    `due` means the backoff is over and only the tree is waited for.
    """

    phase: Phase = Phase.STOPPED
    crashes: int = 0
    restarts: int = 0
    tree: bool = False
    again: bool = False
    due: bool = False


# Events


class Start(msgspec.Struct, frozen=True):
    """Somebody wants the script to run."""


class Stop(msgspec.Struct, frozen=True):
    """Somebody wants the script and its whole tree ended."""


class Restart(msgspec.Struct, frozen=True):
    """Somebody wants a new run."""


class Spawned(msgspec.Struct, frozen=True):
    """The program has been executed."""


class SpawnFailed(msgspec.Struct, frozen=True, kw_only=True):
    """The program could not be executed; `transient` when only the machine was short of something."""

    transient: bool
    draw: float


class Exited(msgspec.Struct, frozen=True, kw_only=True):
    """The main process is gone; `clean` is exit status 0, `tree` whether others of its tree live on."""

    clean: bool
    ran_ms: float
    tree: bool
    draw: float


class TreeGone(msgspec.Struct, frozen=True):
    """No process of the script is left."""


class DelayElapsed(msgspec.Struct, frozen=True):
    """The backoff is over."""


Event: TypeAlias = Start | Stop | Restart | Spawned | SpawnFailed | Exited | TreeGone | DelayElapsed

# Actions


class Spawn(msgspec.Struct, frozen=True):
    """Execute the program."""


class EndTree(msgspec.Struct, frozen=True):
    """Send the stop signal to the whole tree, KILL after `stopTimeout`, and say when it is gone."""


class Delay(msgspec.Struct, frozen=True):
    """Say `DelayElapsed` after this many milliseconds."""

    ms: float


class CancelDelay(msgspec.Struct, frozen=True):
    """Forget the running backoff."""


class SendAlert(msgspec.Struct, frozen=True):
    """Tell of a crash; `restart_in_ms` is None when there will be no restart."""

    crashes: int
    restart_in_ms: float | None


Action: TypeAlias = Spawn | EndTree | Delay | CancelDelay | SendAlert
Step: TypeAlias = tuple[Life, tuple[Action, ...]]


def step(life: Life, event: Event, config: ScriptConfig) -> Step:
    """Return the life after `event` and what must be done now, in order."""
    match event:
        case Start() | Restart():
            return _start(life, anew=isinstance(event, Restart))
        case Stop():
            return _stop(life)
        case Spawned():
            return _spawned(life)
        case SpawnFailed():
            return _spawn_failed(life, event, config)
        case Exited():
            return _exited(life, event, config)
        case TreeGone():
            return _tree_gone(life)
        case DelayElapsed():
            return _delay_elapsed(life)
        case _:
            assert_never(event)


def _change(life: Life, **changes: object) -> Life:
    return msgspec.structs.replace(life, **changes)


def _fresh_start(life: Life) -> Step:
    return _change(life, phase=Phase.STARTING, crashes=0, again=False, due=False), (Spawn(),)


def _start(life: Life, *, anew: bool) -> Step:
    match life.phase:
        case Phase.STARTING:
            return life, ()
        case Phase.RUNNING:
            if not anew:
                return life, ()
            return _change(life, phase=Phase.STOPPING, again=True), (EndTree(),)
        case Phase.STOPPING:
            return _change(life, again=True), ()
        case Phase.STOPPED:
            if life.tree:
                return _change(life, phase=Phase.STOPPING, again=True), (EndTree(),)
            return _fresh_start(life)
        case Phase.BACKOFF | Phase.CRASHED:
            # The tree of a crashed run is being ended already.
            if life.tree:
                return _change(life, phase=Phase.STOPPING, again=True, due=False), (CancelDelay(),)
            after, actions = _fresh_start(life)
            return after, (CancelDelay(), *actions)
        case _:
            assert_never(life.phase)


def _stop(life: Life) -> Step:
    match life.phase:
        case Phase.STARTING | Phase.RUNNING:
            return _change(life, phase=Phase.STOPPING, again=False, tree=True), (EndTree(),)
        case Phase.STOPPING:
            return _change(life, again=False), ()
        case Phase.STOPPED:
            if life.tree:
                return _change(life, phase=Phase.STOPPING), (EndTree(),)
            return life, ()
        case Phase.BACKOFF | Phase.CRASHED:
            phase = Phase.STOPPING if life.tree else Phase.STOPPED
            return _change(life, phase=phase, again=False, due=False, crashes=0), (CancelDelay(),)
        case _:
            assert_never(life.phase)


def _spawned(life: Life) -> Step:
    if life.phase is Phase.STARTING:
        return _change(life, phase=Phase.RUNNING, tree=True), ()
    return life, ()


def _spawn_failed(life: Life, event: SpawnFailed, config: ScriptConfig) -> Step:
    if life.phase is not Phase.STARTING:
        return life, ()
    return _crashed(life, life.crashes + 1, config, draw=event.draw, tree=False, never_give_up=event.transient)


def _exited(life: Life, event: Exited, config: ScriptConfig) -> Step:
    match life.phase:
        case Phase.RUNNING | Phase.STARTING:
            if event.clean:
                return _change(life, phase=Phase.STOPPED, crashes=0, tree=event.tree), ()
            crashes = 1 if event.ran_ms >= config.minUptime else life.crashes + 1
            return _crashed(life, crashes, config, draw=event.draw, tree=event.tree, never_give_up=False)
        case Phase.STOPPING:
            # The end of the tree is what a stop waits for.
            return life, ()
        case Phase.STOPPED | Phase.BACKOFF | Phase.CRASHED:
            return life, ()
        case _:
            assert_never(life.phase)


def _crashed(life: Life, crashes: int, config: ScriptConfig, *, draw: float, tree: bool, never_give_up: bool) -> Step:
    ending: tuple[Action, ...] = (EndTree(),) if tree else ()
    gives_up = not config.autoRestart or crashes >= config.maxRestarts
    if gives_up and not never_give_up:
        after = _change(life, phase=Phase.CRASHED, crashes=crashes, tree=tree)
        return after, (*ending, SendAlert(crashes, None))
    delay_ms = restart_delay_ms(config.backoffBase, crashes, draw)
    after = _change(life, phase=Phase.BACKOFF, crashes=crashes, tree=tree, due=False)
    return after, (*ending, Delay(delay_ms), SendAlert(crashes, delay_ms))


def _tree_gone(life: Life) -> Step:
    gone = _change(life, tree=False)
    match life.phase:
        case Phase.STOPPING:
            if life.again:
                return _fresh_start(gone)
            return _change(gone, phase=Phase.STOPPED, crashes=0), ()
        case Phase.BACKOFF:
            return _respawn(gone) if life.due else (gone, ())
        case Phase.STOPPED | Phase.CRASHED:
            return gone, ()
        case Phase.STARTING | Phase.RUNNING:
            # Word of an earlier run's tree.
            return life, ()
        case _:
            assert_never(life.phase)


def _delay_elapsed(life: Life) -> Step:
    if life.phase is not Phase.BACKOFF:
        return life, ()
    return (_change(life, due=True), ()) if life.tree else _respawn(life)


def _respawn(life: Life) -> Step:
    return _change(life, phase=Phase.STARTING, restarts=life.restarts + 1, due=False), (Spawn(),)
