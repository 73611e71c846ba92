"""Owns the threads that blocking work goes to: a machine that has none left slows that work down, and no more.

Knows nothing of the work.
"""

import logging

import gevent
from gevent.threadpool import ThreadPool

log = logging.getLogger(__name__)


class LastingPool(ThreadPool):
    """A pool whose work waits for the threads it has when the kernel refuses another one.

    That happens where a script has used up what its user or cgroup may have (`TasksMax=`): such a script must not
    take the agent along.
    """

    refused = False

    def adjust(self) -> None:
        """Start threads for what is queued, as far as the kernel lets us.

        Raises:
            RuntimeError: there is not even one thread.
        """
        try:
            super().adjust()
        except RuntimeError as error:
            if self.size == 0:
                raise
            if not self.refused:
                log.warning("%s: blocking work waits for the %d there are", error, self.size)
            self.refused = True
        else:
            self.refused = False


def provide_threads() -> None:
    """Give this thread's hub a lasting pool and start its first thread, for there may be none left later."""
    hub = gevent.get_hub()
    hub.threadpool = LastingPool(hub.threadpool_size, hub)
    hub.threadpool.apply(int)
