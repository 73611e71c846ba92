"""Owns what a backend may ask for: start, stop and restart of scripts that are here already, nothing else.

Knows nothing of how a command came or how it is answered.
"""

import logging

from orionagent.errors import OrionError
from orionagent.scripts.supervisor import Supervisor
from orionagent.wire import RemoteCommand

log = logging.getLogger(__name__)


def carry_out(supervisor: Supervisor, command: RemoteCommand) -> bool:
    """Do what a command says to all scripts of its source; return whether that came to pass for each.

    Blocks as long as the scripts take to start or stop.
    """
    acts = {"start": supervisor.start, "stop": supervisor.stop, "restart": supervisor.restart}
    names = supervisor.names_of_source(command.source)
    act = acts.get(command.type)
    if act is None or not names:
        log.warning("remote command %d (%s of %s) is not for this agent", command.id, command.type, command.source)
        return False
    done = True
    for name in names:
        try:
            act(name)
        except OrionError as error:
            log.warning("remote command %d: %s", command.id, error.message)
            done = False
    return done
