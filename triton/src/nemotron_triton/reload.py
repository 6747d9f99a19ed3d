"""A new bundle for a server that runs, under tritonserver's explicit model control.

tritonserver loads the new model beside the old one and switches when it is ready; answers that the old one has begun
it finishes (seen with 2.51). So both need memory for a while, and where there is not enough the load fails.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nemotron_triton.access import CONTROL_HEADER
from nemotron_triton.bundle import Bundle, bundle_link
from nemotron_triton.compatibility import check_loadable
from nemotron_triton.errors import ServerError, ServingError
from nemotron_triton.repository import configs
from nemotron_triton.run_folder import RunFolder

_WHY = re.compile(r"(?:TritonModelException|Error): (.+)")


class _UnansweredError(ServerError):
    """tritonserver did not answer, so it is not known what it does."""


@dataclass(frozen=True, kw_only=True)
class Reload:
    """Puts the bundle that now lies at `bundle_path` in place of the one that a server serves from `repository`."""

    bundle_path: Path
    repository: Path
    run_folder: RunFolder
    http_url: str
    control: str = field(repr=False)
    timeout_s: float

    def run(self) -> Bundle:
        """The bundle served from now on; after a `ServingError` it is the old one, unless that says otherwise."""
        bundle = Bundle.open(self.bundle_path)
        self.run_folder.verify(bundle)
        check_loadable(bundle)
        link = bundle_link(self.repository)
        try:
            before = link.readlink()
            _point(link, bundle.path.resolve())
        except OSError as error:
            raise ServerError(f"{link} cannot be turned to the new bundle: {error.strerror}") from error
        # The engine first: it is what may not fit. The repository may have been written without the text models.
        models = [model for model in configs() if (self.repository / model).is_dir()]
        for number, model in enumerate(models):
            try:
                self._load(model)
            except (ServingError, OSError) as error:
                # tritonserver goes on with a load that it did not answer to, and may serve that model yet.
                loaded = models[: number + isinstance(error, _UnansweredError)]
                raise ServerError("; ".join([str(error), *self._put_back(link, before, loaded)])) from error
        return bundle

    def _put_back(self, link: Path, before: Path, loaded: Sequence[str]) -> list[str]:
        """Serve the bundle at *before* again, as far as that goes: one model's failure does not keep others from it."""
        try:
            _point(link, before)
        except OSError as error:
            return [f"{link} could not be put back: {error.strerror}"]
        failures = []
        for model in loaded:
            try:
                self._load(model)
            except _UnansweredError as error:
                failures.append(f"{error} again: which bundle it serves is not known; start the server anew")
            except (ServingError, OSError) as error:
                failures.append(f"{model} could not be put back: {error}")
        return failures

    def _load(self, model: str) -> None:
        # Without a change in its folder tritonserver would not load a model again.
        os.utime(self.repository / model / "1" / "model.py")
        # HTTP, which is on this machine's own address and needs no certificates.
        url = urllib.parse.urlsplit(self.http_url)
        assert url.hostname
        connection = http.client.HTTPConnection(url.hostname, url.port, timeout=self.timeout_s)
        try:
            path = f"/v2/repository/models/{model}/load"
            connection.request("POST", path, body="{}", headers={CONTROL_HEADER: self.control})
            response = connection.getresponse()
            text = response.read().decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            raise _UnansweredError(f"tritonserver did not answer to loading {model}: {error!r}") from error
        finally:
            connection.close()
        if response.status != http.client.OK:
            raise ServerError(_reason(text))


def _point(link: Path, target: Path) -> None:
    """Turn *link* to *target* at once: there is no moment without one."""
    new = link.with_name(f".{link.name}-new")
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    new.replace(link)


def _reason(text: str) -> str:
    """The sentence in tritonserver's answer that gives the reason."""
    try:
        message = str(json.loads(text)["error"])
    except (ValueError, LookupError, TypeError):
        message = text
    match = _WHY.search(message)
    return match[1].strip() if match else message.strip().partition("\n")[0]
