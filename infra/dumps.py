"""Keeps the memory of this process, and with it the providers' keys, out of core dumps, and out of sight of its own user.

Measured on Linux 6.18: whoever isn't root may then read `stat`, `status`, `statm`, `limits` and `task` of its /proc/PID, but no
more `mem`, `maps`, `smaps_rollup`, `environ` and `fd`; nor attach a debugger or py-spy. Root may do everything, as ever.
"""

import ctypes
import logging
import resource
import sys

log = logging.getLogger(__name__)

_PR_SET_DUMPABLE = 4


def forbid() -> None:
    """For good, as far as the system lets us. What is forked off has it too; a program that it runs only gets the limit.

    The limit alone wouldn't do: Linux ignores it where dumps go to a program, such as systemd's.
    """
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if sys.platform == "linux" and ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl")
    except (OSError, ValueError) as error:
        log.warning("core dumps could not be forbidden: %s", error)
