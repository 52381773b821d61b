"""How often a Schedule of Chaos Mesh may fire within a time: never fewer times than it does.

Facts from Chaos Mesh 2.7 and 2.8: the line is read by robfig/cron with an optional field for seconds before
the usual five (api/v1alpha1/schedule_types.go, StandardCronParser); times that were missed are made up for by
one firing, and the next is counted from the last, whose time is kept in whole seconds
(controllers/schedule/cron/utils.go); it may fire once more before it hears that it is paused.
"""

from __future__ import annotations

import math
from bisect import bisect_right

from gameday.experiment.quantity import parse_go_duration
from gameday.extend import PlanError

HOUR = 3600
ONCE_AN_HOUR = ("@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually")


def most_firings(line: str, seconds: float) -> int:
    """The most times that it fires while it is there for that long. Raises PlanError for a wrong interval."""
    window = math.ceil(seconds) + 1  # it counts from the whole second before it was made
    words = [w for w in line.split() if not w.startswith(("TZ=", "CRON_TZ="))]  # before @every, too
    if words and words[0] == "@every":
        try:
            every = max(1, math.floor(parse_go_duration(" ".join(words[1:]))))
        except ValueError as error:
            raise PlanError(f"the schedule {line!r} is wrong: {error}") from error
        return window // every + 1
    return _most(_instants(words), window) + 1


def _instants(words: list[str]) -> list[int]:
    """Its seconds within an hour, as if it fired every hour of every day."""
    if words and words[0] in ONCE_AN_HOUR:
        return [0]
    seconds, minutes = words[-6:-5] or ["0"], words[-5:-4] or ["*"]
    return [60 * m + s for m in sorted(_values(minutes[0])) for s in sorted(_values(seconds[0]))]


def _most(instants: list[int], window: int) -> int:
    """The most of them in a window, wherever it begins."""
    whole, rest = divmod(window, HOUR)
    twice = [*instants, *(i + HOUR for i in instants)]
    return whole * len(instants) + max(
        bisect_right(twice, first + rest) - n for n, first in enumerate(instants)
    )


def _values(field: str) -> set[int]:
    """The values of a field of 0 to 59; all of them where it can't be read."""
    found: set[int] = set()
    for part in field.split(","):
        span, _, step = part.partition("/")
        first, dash, last = span.partition("-")
        try:
            start = 0 if span in ("*", "?") else int(first)
            stop = int(last) if dash else (59 if step or span in ("*", "?") else start)
            found |= set(range(start, min(stop, 59) + 1, int(step or 1)))
        except ValueError:
            return set(range(60))
    return found or set(range(60))
