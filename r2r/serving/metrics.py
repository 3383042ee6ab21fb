"""What a server has done, in Prometheus' text format.

Owns the metrics of one replica. Does not own when they are counted.

    metrics = Metrics()
    metrics.documents.inc(20)
    metrics.text()  # b"# HELP r2r_documents_total ..."
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

# In seconds: from one window on a GPU to a long list on a CPU.
_BUCKETS = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 120)


class Metrics:
    """The metrics. Their own registry: vLLM and Ray count in the default one of the same process."""

    def __init__(self) -> None:
        own = self._registry = CollectorRegistry()
        self.requests = Counter("r2r_requests", "Requests by path and status", ["path", "status"], registry=own)
        self.seconds = Histogram("r2r_request_seconds", "Seconds of rankings", buckets=_BUCKETS, registry=own)
        self.in_flight = Gauge("r2r_requests_in_flight", "Rankings at work or waiting for the engine", registry=own)
        self.shed = Counter("r2r_requests_shed", "Requests refused, since too many were in flight", registry=own)
        self.documents = Counter("r2r_documents", "Documents ranked", registry=own)
        self.tokens = Counter("r2r_tokens", "Tokens that the engine read or wrote", ["kind"], registry=own)

    def text(self) -> bytes:
        """Return all metrics. Their media type is `prometheus_client.CONTENT_TYPE_LATEST`."""
        return generate_latest(self._registry)
