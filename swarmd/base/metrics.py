"""Counters and gauges, in prometheus-client's registry; rooms declare theirs at import."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

registry = CollectorRegistry()


def counter(name: str, text: str, *labels: str) -> Counter:
    """Declare a counter `swarmd_<name>`."""
    return Counter(name, text, labels, namespace="swarmd", registry=registry)


def gauge(name: str, text: str, *labels: str) -> Gauge:
    """Declare a gauge `swarmd_<name>`."""
    return Gauge(name, text, labels, namespace="swarmd", registry=registry)


def histogram(name: str, text: str, *labels: str) -> Histogram:
    """Declare a histogram `swarmd_<name>` (seconds unless the name says otherwise)."""
    return Histogram(name, text, labels, namespace="swarmd", registry=registry)


def exposition() -> bytes:
    """All metrics in the Prometheus text format."""
    return generate_latest(registry)
