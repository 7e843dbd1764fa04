"""`python -m batchchat.launch.child FD PARENT CORES`: one replica of a run on this machine.

It ends with the run, however that ends: its socket closes, and the kernel kills it (Linux).
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    descriptor, parent, cores = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the run, which ends its replicas
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if cores:
            os.sched_setaffinity(0, map(int, cores.split(",")))
    if os.getppid() != parent:  # it was killed before the kernel was told
        os._exit(1)
    os.dup2(2, 1)  # the run's standard output may be its report

    from batchchat.process import begin

    begin()  # on the cores that it has now

    from batchchat.launch.channel import BlockingChannel
    from batchchat.launch.worker import serve

    channel = BlockingChannel(socket.socket(fileno=descriptor))
    try:
        serve(channel.messages(), channel.send, lambda: os._exit(1))
    except OSError:
        os._exit(1)
    sys.stderr.flush()
    os._exit(0)  # nothing is left to be done, and a library's thread may not hold it up


if __name__ == "__main__":
    main()
