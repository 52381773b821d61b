"""The `alert` probe: whether an alert is firing, so that an alert can be part of what healthy means."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from gameday.experiment.model import Spec, Text
from gameday.experiment.values import checked
from gameday.probes.base import Measurement
from gameday.probes.prometheus import prometheus_of

if TYPE_CHECKING:
    from gameday.platform.world import World


def _label(text: str) -> None:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text, re.ASCII):
        raise ValueError(f"`{text}` is not the name of a Prometheus label")


class AlertSpec(Spec):
    """An alert, by its name and, if need be, some of its labels."""

    name: Text = Field(description="The alert's name.")
    labels: dict[Annotated[str, checked(_label)], str] = Field(
        {}, description="Labels it must carry; others of that name don't count."
    )

    @classmethod
    def shorthand(cls) -> str:
        return "name"


class Alert:
    """The state of an alert in Prometheus: firing, pending or inactive."""

    Spec: ClassVar = AlertSpec
    needs_prometheus: ClassVar[bool] = True
    example: ClassVar[str] = """\
name: nobody is paged
alert: {name: InferenceDown, labels: {severity: page}}
is: inactive
"""

    async def measure(self, spec: AlertSpec, world: World) -> Measurement:
        """One value. An alert without a rule is no data: a misspelt one would be inactive for ever."""
        prometheus = prometheus_of(world)
        states = {alert.state for alert in await prometheus.alerts(spec.name, spec.labels)}
        if not states and await prometheus.has_alert_rule(spec.name) is False:
            return Measurement((), f"Prometheus has no alert rule named {spec.name}")
        state = "firing" if "firing" in states else "pending" if states else "inactive"
        return Measurement((("", state),))
