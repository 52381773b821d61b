"""Prometheus' HTTP API, and what speaks the same: Thanos, Mimir, VictoriaMetrics.

client      what is asked: a query now or over a range, alerts, rules
connection  how requests travel: address, headers, TLS, proxies, the method
decode      what the answers mean, and whether they are whole
errors      why there is no answer, in words for the person who reads them

API: https://prometheus.io/docs/prometheus/latest/querying/api/
"""

from gameday.platform.prometheus.client import Prometheus
from gameday.platform.prometheus.decode import ActiveAlert, Sample, Series
from gameday.platform.prometheus.errors import TOKEN_ENV, PrometheusError

__all__ = [
    "TOKEN_ENV",
    "ActiveAlert",
    "Prometheus",
    "PrometheusError",
    "Sample",
    "Series",
]
