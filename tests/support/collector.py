"""A collector of OpenTelemetry spans: a real HTTP server that keeps what is posted to it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as otlp


class Collector(ThreadingHTTPServer):
    """Takes spans at `url`, on a free port, one request of an exporter after another."""

    def __init__(self) -> None:
        self.spans: queue.Queue[tuple[Any, dict[str, Any]]] = queue.Queue()
        keep = self._keep

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                keep(self.path, self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
                pass

        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        """The URL for `OTEL_EXPORTER_OTLP_ENDPOINT`."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def span(self) -> tuple[Any, dict[str, Any]]:
        """The next span, and the attributes of its resource."""
        return self.spans.get(timeout=20)

    def _keep(self, path: str, body: bytes) -> None:
        assert path == "/v1/traces"
        for resource in otlp.ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self.spans.put((span, plain(resource.resource.attributes)))


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector that runs until the block ends."""
    with Collector() as collector:
        threading.Thread(target=collector.serve_forever, args=(0.02,), daemon=True).start()
        yield collector
        collector.shutdown()


def plain(attributes: Any) -> dict[str, Any]:
    """OTLP's key-value pairs as a dict."""

    def value(any_value: Any) -> Any:
        kind = any_value.WhichOneof("value")
        content = getattr(any_value, kind)
        return [value(item) for item in content.values] if kind == "array_value" else content

    return {attribute.key: value(attribute.value) for attribute in attributes}
