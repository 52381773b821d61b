"""Who uses the machine, where that may be a number alone."""

from __future__ import annotations

import getpass
import os


def user_name() -> str:
    """The user's name, or "uid N": in a container the user often has neither an entry nor a variable."""
    try:
        return getpass.getuser()  # noqa: TID251
    except (KeyError, OSError):  # KeyError until Python 3.13
        return f"uid {os.getuid()}"
