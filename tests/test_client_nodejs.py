"""The Node.js example: its protocol file against Triton's, its script against the real server and scripted ones.

Skipped where there is no Node.js 18.3 with npm, or npm reaches no registry: nothing else of the project needs them.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from google.protobuf import descriptor_pb2
from tritonclient.grpc import service_pb2, service_pb2_grpc

from conftest import ROOT
from nemotron_triton.bundle import Bundle
from nemotron_triton.callers import Callers
from nemotron_triton.server import ServeOptions
from nemotron_triton.tls import Tls
from running import running

EXAMPLE = ROOT / "clients/examples/nodejs"
TOOLS = ROOT / "build/demo/tools.json"
CAPITAL = "What is the capital of France?"
TIP = "My bill is $100. What will be the amount for 18% tip?"
SECRET = "correct-horse-battery-staple"  # noqa: S105 - it protects nothing
NO_NETWORK = re.compile(r"EAI_AGAIN|ECONNREFUSED|ECONNRESET|ENETUNREACH|ENOTFOUND|ETIMEDOUT")
PRINT_DESCRIPTORS = """
import protoLoader from "@grpc/proto-loader";
const types = Object.values(protoLoader.loadSync("inference.proto", { keepCase: true }));
const [file] = types.find((type) => type.fileDescriptorProtos).fileDescriptorProtos;
process.stdout.write(file.toString("base64"));
"""
Script = Callable[[Any, grpc.ServicerContext], Iterator[Any]]
# All but one start Node.js, for which npm installs packages first: as slow as a server.
pytestmark = pytest.mark.server


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example with what its lock names installed beside it."""
    if not (node := shutil.which("node")) or not shutil.which("npm"):
        pytest.skip("there is no Node.js with npm here")
    version = subprocess.run([node, "--version"], capture_output=True, check=True, text=True).stdout.strip()
    if tuple(map(int, version[1:].split(".")[:2])) < (18, 3):
        pytest.skip(f"Node.js here is {version}; the example needs v18.3 or later")
    folder = tmp_path_factory.mktemp("nodejs") / "example"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("node_modules"))
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1"]
    installed = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if installed.returncode and NO_NETWORK.search(installed.stderr):
        pytest.skip("npm reaches no registry")
    assert installed.returncode == 0, installed.stderr
    return folder


@dataclass(frozen=True)
class Chat:
    """The script and its server."""

    folder: Path
    url: str

    def start(self, *arguments: object, **variables: str) -> subprocess.Popen[str]:
        command = ["node", str(self.folder / "chat.mjs"), "--url", self.url, *map(str, arguments)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("NEMOTRON_")}
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment | variables
        )

    def __call__(self, *arguments: object, **variables: str) -> tuple[int, str, str]:
        """Exit code, stdout, stderr."""
        with self.start(*arguments, **variables) as process:
            stdout, stderr = process.communicate(timeout=60)
        return process.returncode, stdout, stderr


@pytest.fixture
def chat(folder: Path, served: ServeOptions) -> Chat:
    """The script for the served demo model."""
    return Chat(folder, f"127.0.0.1:{served.grpc_port}")


@contextlib.contextmanager
def scripted(folder: Path, script: Script) -> Iterator[Chat]:
    """The script for a gRPC server that is ready and answers every request with *script*."""

    class Servicer(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
        def ServerReady(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802
            return service_pb2.ServerReadyResponse(ready=True)

        def ModelStreamInfer(self, requests: Any, context: grpc.ServicerContext) -> Iterator[Any]:  # noqa: N802
            return script(next(requests), context)

    server = grpc.server(ThreadPoolExecutor(4))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Servicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield Chat(folder, f"127.0.0.1:{port}")
    finally:
        server.stop(None)


def piece(text: str) -> Any:
    """A response of an answer that continues."""
    message = service_pb2.ModelStreamInferResponse()
    message.infer_response.outputs.add(name="text_output", datatype="BYTES", shape=[1, 1])
    message.infer_response.raw_output_contents.append(len(text.encode()).to_bytes(4, "little") + text.encode())
    return message


def refusal(message: str) -> Any:
    """The error in a stream, instead of an answer."""
    return service_pb2.ModelStreamInferResponse(error_message=message)


def test_the_lock_holds_no_addresses_of_packages_but_their_hashes() -> None:
    lock = json.loads((EXAMPLE / "package-lock.json").read_text())
    packages = [package for name, package in lock["packages"].items() if name]

    assert len(packages) > 20
    assert not [package for package in packages if "resolved" in package]
    assert all(package["integrity"].startswith("sha512-") for package in packages)


def test_the_protocol_file_agrees_with_tritons(folder: Path) -> None:
    command = ["node", "--input-type=module", "--eval", PRINT_DESCRIPTORS]
    printed = subprocess.run(command, cwd=folder, capture_output=True, check=True, timeout=60).stdout
    ours = descriptor_pb2.FileDescriptorProto.FromString(base64.b64decode(printed))
    tritons = descriptor_pb2.FileDescriptorProto()
    service_pb2.DESCRIPTOR.CopyToProto(tritons)

    named, expected = dict(declarations(ours)), dict(declarations(tritons))

    assert (ours.package, ours.syntax) == (tritons.package, tritons.syntax)
    assert {"GRPCInferenceService.ModelStreamInfer", "ModelInferRequest.parameters"} < set(named) < set(expected)
    assert named == {name: expected[name] for name in named}


def declarations(file: descriptor_pb2.FileDescriptorProto) -> Iterator[tuple[str, tuple[object, ...]]]:
    """Every field and method in *file* by its path, with everything that the wire format depends on."""
    for message in file.message_type:
        yield from fields(message, message.name)
    for service in file.service:
        for method in service.method:
            types = simple(method.input_type), simple(method.output_type)
            yield f"{service.name}.{method.name}", (*types, method.client_streaming, method.server_streaming)


def fields(message: descriptor_pb2.DescriptorProto, path: str) -> Iterator[tuple[str, tuple[object, ...]]]:
    for field in message.field:
        group = message.oneof_decl[field.oneof_index].name if field.HasField("oneof_index") else None
        yield f"{path}.{field.name}", (field.number, field.type, field.label, simple(field.type_name), group)
    for nested in message.nested_type:
        yield from fields(nested, f"{path}.{simple(nested.name)}")


def simple(name: str) -> str:
    """The last part of *name*. protoc calls the entries of a map `ParametersEntry`, Node's loader `Parameters`."""
    return name.rpartition(".")[2].removesuffix("Entry")


def test_an_answer_is_on_stdout_and_how_it_ended_on_stderr(chat: Chat) -> None:
    code, stdout, stderr = chat(CAPITAL, "--thinking", "off")

    assert code == 0
    assert stdout.strip()
    assert stdout.count("\n") == stdout.strip().count("\n") + 1
    assert re.fullmatch(r"stop: \d+ tokens in, [1-9]\d* out, 0 of thinking\n", stderr)


def test_the_thinking_is_on_stderr(chat: Chat) -> None:
    code, stdout, stderr = chat(CAPITAL, "--thinking", "on")

    thinking, _, end = stderr.strip().rpartition("\n")
    assert (code, bool(stdout.strip())) == (0, True)
    assert thinking.strip()
    assert "think>" not in stdout + stderr
    assert re.fullmatch(r"(stop|length): \d+ tokens in, \d+ out, [1-9]\d* of thinking", end)


def test_a_tool_call_is_a_line_of_json(chat: Chat) -> None:
    code, stdout, stderr = chat(TIP, "--tools", TOOLS, "--thinking", "off")

    (line,) = stdout.splitlines()
    function = json.loads(line)["function"]
    assert (code, function["name"]) == (0, "calculate_tip")
    assert json.loads(function["arguments"]) == {"bill_total": 100, "tip_percentage": 18}
    assert stderr.startswith("tool_calls: ")


def test_a_refused_request_is_one_clear_line(chat: Chat, tmp_path: Path) -> None:
    tools = tmp_path / "tools.json"
    tools.write_text("not JSON")

    for arguments, complaint in [(["--max-tokens", 0], "max_tokens"), (["--tools", tools], "tools")]:
        code, stdout, stderr = chat(CAPITAL, *arguments)
        assert (code, stdout) == (1, "")
        assert re.fullmatch(rf"Error: INVALID_ARGUMENT: .*{complaint}.*\n", stderr)


def test_tls_and_the_secret_come_from_the_environment(bundle: Bundle, folder: Path, tmp_path: Path) -> None:
    ca, cert, key = (tmp_path / f"{name}.pem" for name in ("ca", "cert", "key"))
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(ca))
    issued = authority.issue_cert("localhost")
    issued.cert_chain_pems[0].write_to_path(str(cert))
    issued.private_key_pem.write_to_path(str(key))

    with running(bundle, tls=Tls(cert=cert, key=key), callers=Callers.parse(SECRET, "the test")) as server:
        chat = Chat(folder, f"localhost:{server.options.grpc_port}")
        known = chat(CAPITAL, "--thinking", "off", NEMOTRON_ROOT_CA=str(ca), NEMOTRON_SECRET=SECRET)
        unknown = chat(CAPITAL, NEMOTRON_ROOT_CA=str(ca))
        plain = chat(CAPITAL, NEMOTRON_SECRET=SECRET)

    assert (known[0], known[2][:6]) == (0, "stop: ")
    assert known[1].strip()
    assert (unknown[:2], plain[:2]) == ((1, ""), (1, ""))
    assert re.fullmatch(r"Error: .*protocol is restricted.*; set NEMOTRON_SECRET\n", unknown[2])
    assert re.fullmatch(r"Error: localhost:\d+: .*\n", plain[2])


def test_a_dead_server_is_one_clear_line(folder: Path) -> None:
    code, stdout, stderr = Chat(folder, "127.0.0.1:1")(CAPITAL)

    assert (code, stdout) == (1, "")
    assert re.fullmatch(r"Error: 127\.0\.0\.1:1: .*ECONNREFUSED.*; see whether it is running, and try again\n", stderr)


def test_what_is_sent_is_what_was_said(folder: Path) -> None:
    seen: list[tuple[Any, dict[str, Any], float]] = []

    def script(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        seen.append((request, dict(context.invocation_metadata()), context.time_remaining()))
        yield refusal("INVALID_ARGUMENT: no")

    with scripted(folder, script) as chat:
        chat("Größe?", "--thinking", "on", "--max-tokens", 7, "--timeout", 30, NEMOTRON_SECRET=SECRET)
    ((request, metadata, remaining_s),) = seen

    sent = dict(zip([tensor.name for tensor in request.inputs], request.raw_input_contents, strict=True))
    messages = '[{"role":"user","content":"Größe?"}]'.encode()
    assert sent == {
        "messages": len(messages).to_bytes(4, "little") + messages,
        "stream": b"\1",
        "thinking": b"\1",
        "max_tokens": b"\7\0\0\0",
    }
    assert {tensor.datatype for tensor in request.inputs} == {"BYTES", "BOOL", "INT32"}
    assert all(tensor.shape == [1, 1] for tensor in request.inputs)
    assert request.parameters["timeout"].int64_param == 30_000_000
    # gRPC rounds up what it sends.
    assert 0 < remaining_s < 30.5
    assert metadata["triton-grpc-protocol-nemotron-secret"] == SECRET
    # It crashes tritonserver before 26.04.
    assert "triton_grpc_error" not in metadata


def test_a_refused_stream_is_read_to_its_end(folder: Path) -> None:
    cancelled = threading.Event()
    seen: list[bool] = []

    def script(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        context.add_callback(cancelled.set)
        yield refusal("UNAVAILABLE: the queue is full")
        seen.append(cancelled.wait(0.5))

    with scripted(folder, script) as chat:
        result = chat(CAPITAL)

    line = "Error: UNAVAILABLE: the queue is full; see whether it is running, and try again\n"
    assert (result, seen) == ((1, "", line), [False])


@pytest.mark.parametrize(
    ("end", "complaint"),
    [
        ([refusal("INTERNAL: the engine\nfailed")], "INTERNAL: the engine failed"),
        ([refusal("of tritonserver's own")], "of tritonserver's own"),
        ([], "the answer ended without a finish reason: what came of it is incomplete"),
    ],
)
def test_what_came_before_a_failure_is_shown(folder: Path, end: list[Any], complaint: str) -> None:
    def script(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        yield piece("Pa")
        yield piece("ris")
        yield from end

    with scripted(folder, script) as chat:
        result = chat(CAPITAL)

    assert result == (1, "Paris\n", f"Error: {complaint}\n")


def test_a_stream_that_breaks_is_one_clear_line(folder: Path) -> None:
    def script(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        yield piece("Paris")
        context.abort(grpc.StatusCode.INTERNAL, "out of luck")

    with scripted(folder, script) as chat:
        result = chat(CAPITAL)

    assert result == (1, "Paris\n", f"Error: {chat.url}: out of luck\n")


def test_the_deadline_ends_an_answer_that_does_not_come(folder: Path) -> None:
    ended = threading.Event()

    def script(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        context.add_callback(ended.set)
        ended.wait(60)
        yield from ()

    with scripted(folder, script) as chat:
        code, stdout, stderr = chat(CAPITAL, "--timeout", 1)

    assert (code, stdout) == (1, "")
    assert re.fullmatch(rf"Error: {chat.url}: .*; give it longer with --timeout\n", stderr)


def test_ctrl_c_stops_the_generation(folder: Path) -> None:
    ended = threading.Event()

    def script(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        context.add_callback(ended.set)
        yield piece("Pa\n")
        ended.wait(60)

    with scripted(folder, script) as chat, chat.start(CAPITAL) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
        stopped = ended.wait(60)

    assert (first, stdout, stderr) == ("Pa\n", "", "Error: stopped\n")
    assert (process.returncode, stopped) == (130, True)


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        ([], 2, "give one question in quotes, not 0"),
        (["What", "is", "it?"], 2, "give one question in quotes, not 3"),
        (["hi", "--thinking", "maybe"], 2, "--thinking is maybe; it must be on or off"),
        (["hi", "--max-tokens", "1e10"], 2, "--max-tokens is 1e10; it must be a whole number below 2147483648"),
        (["hi", "--timeout", "soon"], 2, "--timeout is soon; it must be above 0 and at most 86400 seconds"),
        (["hi", "--tools", "/nowhere.json"], 1, "cannot read /nowhere.json: ENOENT: no such file or directory"),
    ],
)
def test_options_that_cannot_be_used_are_one_clear_line(
    folder: Path, arguments: list[str], code: int, complaint: str
) -> None:
    result = Chat(folder, "127.0.0.1:1")(*arguments)

    assert result[:2] == (code, "")
    assert result[2].startswith(f"Error: {complaint}")
    assert result[2].count("\n") == 1
