"""Series that nobody reads: what is recorded where no metric can be."""

from __future__ import annotations

from .definition import MetricDefinition, MetricType
from .family import CounterFamily, GaugeFamily, HistogramFamily, Settings
from .series import Activity, Timer

_settings = Settings(1, strict=False)
NO_COUNTER = CounterFamily(MetricDefinition("nowhere", MetricType.COUNTER), _settings).labels()
NO_GAUGE = GaugeFamily(MetricDefinition("nowhere", MetricType.GAUGE), _settings).labels()
NO_HISTOGRAM = HistogramFamily(MetricDefinition("nowhere", MetricType.HISTOGRAM), _settings).labels()
# Shared by all blocks that use them: what one of them notes, nobody reads.
NO_TIMER = Timer(NO_HISTOGRAM)
NO_ACTIVITY = Activity(NO_GAUGE)
