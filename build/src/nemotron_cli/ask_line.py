"""The command with which a server that has just started is asked, as a user can paste it."""

from __future__ import annotations

import shlex
import ssl
from pathlib import Path
from typing import Any

from nemotron_triton.callers import DEFAULT_CALLER
from nemotron_triton.serve_options import ServeOptions
from nemotron_triton.tls import Tls


def ask_line(options: ServeOptions, secret_file: Path | None) -> str:
    """`nemotron chat` for a server with *options*, whose secret is in *secret_file* or else in the environment.

    What only the clients have, such as their own certificates, has a name in capitals.
    """
    words = ["nemotron", "chat", "What is the capital of France?"]
    host, _, port = options.grpc_url.rpartition(":")
    if options.tls:
        names, is_root = _certificate(options.tls)
        if names and host.strip("[]") not in names:
            host = next((name for name in names if "*" not in name), host)
        words += ["--root-ca", str(options.tls.cert) if is_root else "CA.pem"]
        if options.tls.client_ca:
            words += ["--client-cert", "CLIENT.pem", "--client-key", "CLIENT-KEY.pem"]
    words[3:3] = ["--url", f"{host}:{port}"]
    # A file that names its callers is the server's; a client has one secret.
    is_clients = secret_file and str(options.callers) == DEFAULT_CALLER
    if is_clients:
        words += ["--secret-file", str(secret_file)]
    # The question in the quotes that also other shells have.
    words[2] = f'"{words[2]}"'
    command = " ".join([*words[:3], *map(shlex.quote, words[3:])])
    return f"ask it{', with NEMOTRON_SECRET set' if options.callers and not is_clients else ''}: {command}"


def _certificate(tls: Tls) -> tuple[list[str], bool]:
    """The names that the certificate is for, where that is known, and whether it is its own authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(tls.cert)
    # It gives those of authorities only, which a certificate that signs itself commonly is.
    for certificate in context.get_ca_certs():
        if certificate["issuer"] == certificate["subject"]:
            names: Any = certificate.get("subjectAltName", ())
            return [str(name) for kind, name in names if kind in ("DNS", "IP Address")], True
    return [], False
