"""The `prometheus` probe: what a query says now."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from gameday.experiment.model import PromQL, Spec
from gameday.platform.errors import PlatformError
from gameday.probes.base import Measurement

if TYPE_CHECKING:
    from gameday.platform.prometheus import Prometheus
    from gameday.platform.world import World

MOST_SERIES = 10_000  # more than that is a mistake in the query, and nobody reads it


class PrometheusSpec(Spec):
    """A query in PromQL."""

    query: PromQL = Field(description="An instant query; each series it gives is judged on its own.")

    @classmethod
    def shorthand(cls) -> str:
        return "query"


class PrometheusQuery:
    """What a Prometheus query says now: one value for each series."""

    Spec: ClassVar = PrometheusSpec
    needs_prometheus: ClassVar[bool] = True
    example: ClassVar[str] = """\
name: p99 latency
prometheus: histogram_quantile(0.99, sum by (le) (rate(inference_request_duration_seconds_bucket[1m])))
is: < 500ms
"""

    async def measure(self, spec: PrometheusSpec, world: World) -> Measurement:
        """Each series' value, named by its labels; none when the query gives nothing."""
        found = await prometheus_of(world).instant(spec.query, limit=MOST_SERIES)
        return Measurement(tuple((series_name(labels), value) for labels, value in found))


def prometheus_of(world: World) -> Prometheus:
    """The run's Prometheus. Raises PlatformError when it has none."""
    if world.prometheus is None:
        raise PlatformError(
            "no Prometheus is given: name one with --prometheus URL or $GAMEDAY_PROMETHEUS_URL"
        )
    return world.prometheus


def series_name(labels: dict[str, str]) -> str:
    """A series as PromQL would name it, as `up{job="inference"}`; "" for one without labels."""
    pairs = ", ".join(f'{key}="{labels[key]}"' for key in sorted(labels) if key != "__name__")
    return labels.get("__name__", "") + (f"{{{pairs}}}" if pairs else "")
