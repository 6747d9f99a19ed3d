"""What load balancers ask a server."""

from __future__ import annotations

import http.client

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from nemotron_triton.server import ServeOptions


def readiness(options: ServeOptions) -> set[bool]:
    """What load balancers are told by HTTP, by gRPC's health protocol and by Triton's own call."""
    return {_http_is_ready(options), _grpc_is_serving(options), _triton_is_ready(options)}


def _http_is_ready(options: ServeOptions) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", options.http_port, timeout=10)
    try:
        connection.request("GET", "/v2/health/ready")
        return connection.getresponse().status == http.client.OK
    finally:
        connection.close()


def _grpc_is_serving(options: ServeOptions) -> bool:
    with grpc.insecure_channel(options.grpc_url) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        # A message whose field 1 is the status: 1 is SERVING, 2 is NOT_SERVING.
        return {b"\x08\x01": True, b"\x08\x02": False}[check(b"", timeout=10)]


def _triton_is_ready(options: ServeOptions) -> bool:
    with grpc.insecure_channel(options.grpc_url) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        return bool(stub.ServerReady(service_pb2.ServerReadyRequest(), timeout=10).ready)
