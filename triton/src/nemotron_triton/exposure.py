"""What a server exposes, in lines for the person who starts it."""

from __future__ import annotations

from collections.abc import Iterator

from nemotron_triton.serve_options import ServeOptions, is_loopback, join


def exposure(options: ServeOptions) -> Iterator[str]:
    """Each endpoint with how it is protected, then what is off."""
    secret = "secret required" if options.secret else "no secret"
    transport = "plain"
    if options.tls:
        transport = "mutual TLS" if options.tls.client_ca else "TLS"
    hosts = options.hosts
    yield f"gRPC     {join(hosts['--grpc-port'], options.grpc_port)}: {transport}, {secret}"
    yield f"HTTP     {join(hosts['--http-port'], options.http_port)}: plain, {secret}"
    yield f"metrics  http://{join(hosts['--metrics-port'], options.metrics_port)}/metrics: plain, no secret"
    yield f"model control {'by SIGHUP only' if options.allow_reload else 'off'}, shared memory off, tracing calls off"


def warnings(options: ServeOptions) -> Iterator[str]:
    """One line for what others reach and nothing protects, and one for what HTTP cannot take from others."""
    hosts = options.hosts
    lacking = {
        "gRPC": [*([] if options.tls else ["TLS"]), *([] if options.secret else ["secret"])],
        "HTTP": ["TLS", *([] if options.secret else ["secret"])],
        "metrics": ["TLS", "secret"],
    }
    ports = {"gRPC": "--grpc-port", "HTTP": "--http-port", "metrics": "--metrics-port"}
    open_ones = [
        f"{name} without {' and '.join(lacks)}"
        for name, lacks in lacking.items()
        if lacks and not is_loopback(hosts[ports[name]])
    ]
    if open_ones:
        yield (
            f"warning: other machines reach {', '.join(open_ones)}; "
            "keep them behind a firewall; --tls-cert protects gRPC, --secret-file gRPC and HTTP"
        )
    if not is_loopback(hosts["--http-port"]):
        yield "warning: tritonserver before 26.04 can be stopped by one HTTP request; keep HTTP behind a proxy"
