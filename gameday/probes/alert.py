"""The `alert` probe: whether an alert is firing, so that an alert can be part of what healthy means."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from gameday.experiment.model import Line, Spec
from gameday.experiment.values import PrometheusLabel
from gameday.extend import Measurement, Probe
from gameday.probes.prometheus import prometheus_of

if TYPE_CHECKING:
    from gameday.platform.world import World


NO_RULE = "has no alert rule named {}"
NO_RULES = (
    "lists no alert rules, so that nobody knows whether {} is inactive: name what evaluates them (vmalert, "
    "a ruler) in spec.target.prometheus.rulesUrl"
)


class AlertSpec(Spec):
    """An alert, by its name and, if need be, some of its labels."""

    name: Line = Field(description="The alert's name.")
    labels: dict[PrometheusLabel, str] = Field(
        {}, description="Labels it must carry; others of that name don't count."
    )

    @classmethod
    def shorthand(cls) -> str:
        return "name"


class Alert(Probe[AlertSpec]):
    """The state of an alert in Prometheus: firing, pending or inactive."""

    Spec: ClassVar = AlertSpec
    asks_cluster: ClassVar[bool] = False
    needs_prometheus: ClassVar[bool] = True
    example: ClassVar[str] = """\
name: nobody is paged
alert: {name: InferenceDown, labels: {severity: page}}
is: inactive
"""

    async def measure(self, spec: AlertSpec, world: World) -> Measurement:
        """One value. An alert without a rule that is known is no data: it would be inactive for ever."""
        prometheus = prometheus_of(world)
        states = {alert.state for alert in await prometheus.alerts(spec.name, spec.labels)}
        if not states and not (known := await prometheus.has_alert_rule(spec.name)):
            return Measurement((), f"Prometheus {NO_RULE if known is False else NO_RULES}".format(spec.name))
        state = "firing" if "firing" in states else "pending" if states else "inactive"
        return Measurement((("", state),))
