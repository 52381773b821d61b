"""The `prometheus` probe: what a query says now."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from gameday.experiment.model import PromQL, Spec
from gameday.extend import Measurement, Probe
from gameday.platform.errors import PartialAnswer, PlatformError

if TYPE_CHECKING:
    from gameday.platform.prometheus import Prometheus
    from gameday.platform.world import World

MOST_SERIES = 10_000  # more than that is a mistake in the query, and nobody reads it


class PrometheusSpec(Spec):
    """A query in PromQL."""

    query: PromQL = Field(description="An instant query; each series it gives is judged on its own.")
    partial: Literal["refuse", "allow"] = Field(
        "refuse",
        description="Whether an answer with warnings, as Thanos' while a store is away, may count as health.",
    )

    @classmethod
    def shorthand(cls) -> str:
        return "query"


class PrometheusQuery(Probe[PrometheusSpec]):
    """What a Prometheus query says now: one value for each series."""

    Spec: ClassVar = PrometheusSpec
    asks_cluster: ClassVar[bool] = False
    needs_prometheus: ClassVar[bool] = True
    example: ClassVar[str] = """\
name: p99 latency
prometheus: histogram_quantile(0.99, sum by (le) (rate(inference_request_duration_seconds_bucket[1m])))
is: < 500ms
"""

    async def measure(self, spec: PrometheusSpec, world: World) -> Measurement:
        """Each series' value, named by its labels; none when there is none. Raises PartialAnswer."""
        why = ""
        try:
            found = await prometheus_of(world).instant(spec.query, limit=MOST_SERIES)
        except PartialAnswer as part:
            if spec.partial == "refuse":
                raise
            found, why = part.found, f"allowed, though only in part: {part.why}"
        return Measurement(tuple((series_name(labels), value) for labels, value in found), why)


def prometheus_of(world: World) -> Prometheus:
    """The run's Prometheus. Raises PlatformError when it has none."""
    if world.prometheus is None:
        raise PlatformError(
            "no Prometheus is given: name one with --prometheus URL, or in spec.target.prometheus"
        )
    return world.prometheus


def series_name(labels: dict[str, str]) -> str:
    """A series as PromQL would name it, as `up{job="inference"}`; "" for one without labels."""
    pairs = ", ".join(f'{key}="{labels[key]}"' for key in sorted(labels) if key != "__name__")
    return labels.get("__name__", "") + (f"{{{pairs}}}" if pairs else "")
