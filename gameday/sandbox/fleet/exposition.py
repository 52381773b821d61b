"""Prometheus' text format: counters, gauges and histograms as lines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

Labels = Mapping[str, str]
Sample = tuple[str, Labels, float]  # the metric's full name, its labels, its value


class Family:
    """One metric with its HELP and TYPE."""

    def __init__(self, name: str, kind: str, text: str) -> None:
        self.name, self.kind, self.text = name, kind, text
        self.samples: list[Sample] = []

    def add(self, value: float, suffix: str = "", /, **labels: str) -> Family:
        self.samples.append((self.name + suffix, labels, value))
        return self

    def histogram(
        self, bounds: Iterable[float], counts: Iterable[float], total: float, **labels: str
    ) -> None:
        """Cumulative buckets (the last count is +Inf's), their sum and count."""
        last = 0.0
        for bound, count in zip([*map(_number, bounds), "+Inf"], counts, strict=True):
            last = count
            self.add(count, "_bucket", **labels, le=bound)
        self.add(total, "_sum", **labels)
        self.add(last, "_count", **labels)


def text_of(families: Iterable[Family]) -> str:
    """The page that a scrape gets."""
    lines: list[str] = []
    for family in families:
        lines.append(f"# HELP {family.name} {family.text}")
        lines.append(f"# TYPE {family.name} {family.kind}")
        lines.extend(line_of(s) for s in family.samples)
    return "\n".join(lines) + "\n"


def line_of(sample: Sample) -> str:
    name, labels, value = sample
    inside = ",".join(f'{k}="{_escape(v)}"' for k, v in labels.items())
    return f"{name}{{{inside}}} {_number(value)}" if inside else f"{name} {_number(value)}"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
