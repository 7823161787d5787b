"""The secrets in the memory of this process, which others of the same OS user could read."""

import ctypes
import os
import sys
from collections.abc import Iterable

_PR_SET_DUMPABLE = 4


def keep_secrets(unneeded: Iterable[str] = ()) -> None:
    """Let no other process but root's read the memory or environment of this one, on Linux.

    Processes that are forked from it are so too, programs that it starts are not. Variables that
    are not needed go.
    """
    for name in unneeded:
        os.environ.pop(name, None)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
