"""The secrets that masking keeps for as long as the process lives: none of another test's, or example's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gameday import masking


@contextmanager
def nothing_kept() -> Iterator[None]:
    """Begin without any kept secret, and leave the ones of before."""
    before = masking._kept, masking._kept_pattern, masking._longest
    masking._kept, masking._kept_pattern, masking._longest = {}, None, 0
    try:
        yield
    finally:
        masking._kept, masking._kept_pattern, masking._longest = before
