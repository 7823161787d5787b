"""Protects the secrets in this process's memory from other processes of the same OS user."""

import ctypes
import os
import sys
from collections.abc import Iterable

_PR_SET_DUMPABLE = 4


def keep_secrets(unneeded: Iterable[str] = ()) -> None:
    """On Linux, let only root's processes read the memory and environment of this one.

    This also holds for processes that are forked from it, but not for programs that it starts. The
    variables named in `unneeded` are removed from the environment.
    """
    for name in unneeded:
        os.environ.pop(name, None)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
