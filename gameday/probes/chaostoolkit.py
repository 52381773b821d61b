"""The `chaostoolkit` probe: any probe of an installed Chaos Toolkit extension, as its own docs write it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from gameday.experiment.activity import ActivitySpec
from gameday.extend import Measurement, Probe
from gameday.platform.errors import PlatformError

if TYPE_CHECKING:
    from gameday.platform.world import World

LONGEST = 300.0  # seconds; a probe's own `timeout` cancels it much earlier


class ChaosToolkitSpec(ActivitySpec):
    """A Chaos Toolkit probe. Reference: https://chaostoolkit.org/reference/api/experiment/#probe"""

    type: Literal["probe"] = Field("probe", description="Always `probe`.")
    tolerance: Any = Field(
        None,
        description="As in a Chaos Toolkit hypothesis: the value is then whether it is met, for `is: true`.",
    )


class ChaosToolkit(Probe[ChaosToolkitSpec]):
    """The value that a Chaos Toolkit probe returns."""

    Spec: ClassVar = ChaosToolkitSpec
    asks_cluster: ClassVar[bool] = False
    example: ClassVar[str] = """\
name: pods of the app
chaostoolkit:
  type: probe
  name: count-pods
  provider:
    type: python
    module: chaosk8s.pod.probes
    func: count_pods
    arguments: {label_selector: app=inference, ns: inference}
is: ">= 10"
"""

    async def measure(self, spec: ChaosToolkitSpec, world: World) -> Measurement:
        """One value; none when the probe returned nothing. It runs in a process of its own."""
        from gameday.platform.chaostoolkit import run_activity

        asked = spec.activity | {"tolerance": spec.tolerance}
        environment = world.kube.environment()
        result = await run_activity(asked, LONGEST, environment, spec.configuration, spec.secrets)
        return Measurement(_series(spec.name, result))


def _series(name: str, result: Any) -> tuple[tuple[str, float | str | bool], ...]:
    if isinstance(result, dict) and "status" in result:  # what its http and process providers return
        result = result["status"]
    if result is None:
        return ()
    if isinstance(result, bool | str):
        return (("", result),)
    if isinstance(result, int | float):
        return (("", float(result)),)
    if isinstance(result, list) and all(isinstance(item, bool | int | float | str) for item in result):
        return tuple((str(number), item) for number, item in enumerate(result))
    raise PlatformError(
        f"the Chaos Toolkit probe {name} returned a {type(result).__name__}, expected a number, a text, "
        "true or false"
    )
