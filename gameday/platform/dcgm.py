"""DCGM on a node, through `dcgmi` in the pod that runs its host engine.

`dcgmi test --inject` puts a value into the engine's cache, where every reader of DCGM finds it (exporter,
health checks, policies); the GPU knows nothing of it. `dcgmi dmon` reads fields back.

`dcgmi health` judges by the samples that the engine retains, so that an error which was injected once is held
against the GPU after another value was injected, too, until the engine is started anew (NVIDIA's manual of
dcgmi health, "evaluates the retained samples").
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gameday.experiment.text import shorten
from gameday.platform.devices import pods_on
from gameday.platform.errors import PlatformError
from gameday.platform.exec import is_killed
from gameday.platform.objects import Ref

if TYPE_CHECKING:
    from gameday.platform.kube import Kube

XID_FIELD = 230  # DCGM_FI_DEV_XID_ERRORS: the number of the last XID
# Exit codes: DCGM_ST_CONNECTION_NOT_VALID (-21) and DCGM_ST_TIMEOUT (-11), of an engine that may do it yet.
UNANSWERED = (256 - 21, 256 - 11)
# Images by their names, the best first: an exporter without an engine beside it has one of its own.
_IMAGES = ("dcgm", "dcgm-exporter")


@dataclass(frozen=True)
class Engine:
    """Where a node's host engine can be spoken to."""

    pod: Ref
    container: str


class DcgmError(PlatformError):
    """`dcgmi` said no, or something that we don't understand.

    Its exit code is the last byte of what the engine returned (dcgmi/main_dcgmi.cpp, dcgm_structs.h).
    """

    def __init__(self, text: str, code: int = 1) -> None:
        self.may_land = code in UNANSWERED or is_killed(code)
        super().__init__(text)


async def engine(kube: Kube, node: str) -> Engine | None:
    """The node's DCGM container; None when there is none."""
    found: dict[str, Engine] = {}
    for pod in await pods_on(kube, node):
        meta = pod["metadata"]
        ref = Ref("v1", "Pod", meta["name"], meta["namespace"], meta["uid"])
        for container in pod["spec"]["containers"]:
            image = container["image"].partition("@")[0].rpartition("/")[2].partition(":")[0]
            found.setdefault(image, Engine(ref, container["name"]))
    return next((found[i] for i in _IMAGES if i in found), None)


async def value(kube: Kube, node: str, gpu: int, field: int) -> float | None:
    """A field of a GPU as DCGM has it; None when it has none, or there is no DCGM."""
    one = await engine(kube, node)
    return None if one is None else await read(kube, one, gpu, field)


async def read(kube: Kube, one: Engine, gpu: int, field: int) -> float | None:
    """As `value`, from an engine that is known."""
    text = await _dcgmi(kube, one, "dmon", "-e", str(field), "-i", str(gpu), "-c", "1", "-d", "100")
    rows = [line.split() for line in text.splitlines() if line.startswith("GPU ")]
    if not rows or len(rows[-1]) < 3 or rows[-1][1] != str(gpu):
        raise DcgmError(f"{one.pod}: dcgmi dmon knows no GPU {gpu}: {_line(text)}")
    try:
        return float(rows[-1][-1])
    except ValueError:
        return None  # N/A


async def health(kube: Kube, one: Engine) -> str:
    """What the engine's health watches say of all its GPUs: Healthy, Warning, Failure; "" without any."""
    done = await kube.exec(one.pod, one.container, ["dcgmi", "health", "--check", "--json"])
    try:
        return str(json.loads(done.stdout)["body"]["Overall Health"]["value"])
    except (ValueError, KeyError, TypeError):
        return ""  # no watch is set, or this engine has no such module


async def inject(kube: Kube, one: Engine, gpu: int, field: int, value: float) -> None:
    """Put a value into DCGM's cache."""
    await _dcgmi(kube, one, "test", "--inject", "--gpuid", str(gpu), "-f", str(field), "-v", f"{value:g}")


async def _dcgmi(kube: Kube, one: Engine, *arguments: str) -> str:
    done = await kube.exec(one.pod, one.container, ["dcgmi", *arguments])
    if done.code != 0:
        said = _line(done.stderr or done.stdout)
        text = f"{one.pod}: `dcgmi {' '.join(arguments)}` ended with {done.code}: {said}"
        raise DcgmError(text, done.code)
    return done.stdout


def _line(text: str) -> str:
    return shorten(text, 300) or "it said nothing"
