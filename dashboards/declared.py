"""Which series there are, and their labels: read from the registries of the farm and of the controller."""

import functools
from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.registry import Collector

from cluster.controller.metrics import ControllerMetrics
from serving.telemetry.histograms import MergedHistogram
from serving.telemetry.metrics import FarmMetrics

_SERIES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}


@functools.cache
def declared_series() -> Mapping[str, tuple[str, ...]]:
    """Labels by the name of the series, such as longtake_calls_total or longtake_call_seconds_bucket, without `le`."""
    registries = (FarmMetrics().registry, ControllerMetrics().registry)
    return {name: labels for registry in registries for name, labels in _read(registry)}


def labels_of(series: str) -> tuple[str, ...]:
    """Labels of a series. Raises LookupError for one that nobody exports."""
    try:
        return declared_series()[series]
    except KeyError:
        raise LookupError(f"{series} is exported by nobody") from None


def _read(registry: CollectorRegistry) -> Iterator[tuple[str, tuple[str, ...]]]:
    # A labelled metric without a child shows no samples to read from, so the metrics are asked themselves.
    for collector in registry._collector_to_names:
        name, kind, labels = _declaration(collector)
        for suffix in _SERIES[kind]:
            yield name + suffix, labels


def _declaration(collector: Collector) -> tuple[str, str, tuple[str, ...]]:
    if isinstance(collector, MergedHistogram):
        return collector.name, "histogram", collector.labels
    assert isinstance(collector, MetricWrapperBase), f"{collector} is of a kind that is not known here"
    return collector._name, str(collector._type), tuple(collector._labelnames)
