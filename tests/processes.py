"""Whether a process is there."""

import psutil


def alive(pid: int) -> bool:
    """Whether the process is there and works: one that ended but was not waited for by its parent does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
