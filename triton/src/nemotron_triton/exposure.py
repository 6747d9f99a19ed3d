"""What a server exposes, in lines for the person who starts it."""

from __future__ import annotations

from collections.abc import Iterator

from nemotron_triton.addresses import join
from nemotron_triton.serve_options import ServeOptions, is_loopback


def exposure(options: ServeOptions, *others: str) -> Iterator[str]:
    """Each endpoint with how it is protected, *others* that are not tritonserver's, then what is off."""
    callers = len(options.callers or ())
    secret = f"secret required ({callers} caller{'s' * (callers > 1)})" if callers else "no secret"
    transport = "mutual TLS" if options.tls and options.tls.client_ca else "TLS" if options.tls else "plain"
    hosts = options.hosts
    yield f"gRPC     {join(hosts['--grpc-port'], options.grpc_port)}: {transport}, {secret}"
    yield f"HTTP     {join(hosts['--http-port'], options.http_port)}: plain, {secret}"
    yield f"metrics  http://{join(hosts['--metrics-port'], options.metrics_port)}/metrics: plain, no secret"
    yield from others
    yield f"model control {'by SIGHUP only' if options.allow_reload else 'off'}, shared memory off, tracing calls off"


def warnings(options: ServeOptions) -> Iterator[str]:
    """A line for endpoints that other machines reach and nothing protects, for a weakness of HTTP, for a vain limit."""
    endpoints = {"gRPC": (options.tls, options.callers), "HTTP": (None, options.callers), "metrics": (None, None)}
    exposed = [
        f"{name} without {' and '.join(lacking)}"
        for name, (tls, secret) in endpoints.items()
        if (lacking := [*([] if tls else ["TLS"]), *([] if secret else ["secret"])])
        and not is_loopback(options.hosts[f"--{name.lower()}-port"])
    ]
    if exposed:
        yield (
            f"warning: other machines reach {', '.join(exposed)}; "
            "keep them behind a firewall; --tls-cert protects gRPC, --secret-file gRPC and HTTP"
        )
    if not is_loopback(options.hosts["--http-port"]):
        yield "warning: tritonserver before 26.04 can be stopped by one HTTP request; keep HTTP behind a proxy"
    if options.settings.max_requests_per_caller and not options.callers:
        yield (
            "warning: --max-requests-per-caller bounds all callers together, because without --secret-file none has a "
            "name"
        )
