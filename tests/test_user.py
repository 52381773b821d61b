"""A container runs as a number that nobody gave a name."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.fast


@pytest.mark.skipif(os.name != "posix" or os.getuid() != 0, reason="only root becomes another user")
def test_a_user_without_a_name_is_called_by_number() -> None:
    """As in the janitor's image, and on OpenShift; `gameday note` and a run ended with a defect there."""
    program = "from gameday import user; import os; os.setuid(65532); print(user.user_name())"
    plain = {k: v for k, v in os.environ.items() if k not in ("LOGNAME", "USER", "LNAME", "USERNAME")}
    done = subprocess.run(
        [sys.executable, "-c", program], env=plain, capture_output=True, text=True, check=True
    )
    assert done.stdout == "uid 65532\n"
