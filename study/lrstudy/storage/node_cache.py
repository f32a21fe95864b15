"""The cache of a node: copies of what a bucket holds, on a disk of the node itself. It may be deleted at any time.

studies/<digest of the storage>/<study>/   working copies of studies
data/<key>/                                decoded data
numerics/                                  what torch computes with on this machine
files/<digest>/                            files of users' code, from hosts that share none with this node
"""

from __future__ import annotations

import os
from pathlib import Path

from lrstudy.errors import Fault, InputError, user_path

VARIABLE = "LRSTUDY_CACHE"


def root() -> Path:
    """``$LRSTUDY_CACHE``, else ``$XDG_CACHE_HOME/lrstudy``, else ``~/.cache/lrstudy``; it need not exist.

    Raises InputError if the variable has a relative path, as processes of one node work in different folders.
    """
    if text := os.environ.get(VARIABLE):
        path = user_path(text, VARIABLE)
        if not path.is_absolute():
            raise InputError(Fault(VARIABLE, expected="an absolute path of a folder on a disk of the node", got=text))
        return path
    home = os.environ.get("XDG_CACHE_HOME", "")
    return Path(home if os.path.isabs(home) else user_path("~/.cache", VARIABLE)) / "lrstudy"
