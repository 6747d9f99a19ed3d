"""The certificates of the gRPC endpoint, checked before a server is started with them."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from nemotron_triton.errors import ServerError


@dataclass(frozen=True, kw_only=True)
class Tls:
    """PEM files: the server's certificate chain and key, and the authority that clients' certificates must come from.

    Without a `client_ca` any client may connect.
    """

    cert: Path
    key: Path
    client_ca: Path | None = None

    def check(self) -> None:
        """`ServerError` when a file cannot be used, which tritonserver would report only to those who connect."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        for file in filter(None, (self.cert, self.key, self.client_ca)):
            try:
                file.read_bytes()
            except OSError as error:
                raise ServerError(f"cannot read {file}: {error.strerror}") from error
        try:
            # An empty password: else one is asked for on the terminal, and tritonserver takes none.
            context.load_cert_chain(self.cert, self.key, password="")
        except (ssl.SSLError, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            raise ServerError(
                f"{self.cert} and {self.key} are no certificate and its key ({reason})", "give both as PEM, unencrypted"
            ) from error
        if self.client_ca:
            try:
                context.load_verify_locations(self.client_ca)
            except ssl.SSLError as error:
                raise ServerError(
                    f"{self.client_ca} holds no certificate ({error.reason})", "give the authority as PEM"
                ) from error

    def arguments(self) -> list[str]:
        """The arguments of tritonserver."""
        arguments = [f"--grpc-server-cert={self.cert.resolve()}", f"--grpc-server-key={self.key.resolve()}"]
        if self.client_ca:
            arguments += ["--grpc-use-ssl-mutual=true", f"--grpc-root-cert={self.client_ca.resolve()}"]
        return ["--grpc-use-ssl=true", *arguments]
