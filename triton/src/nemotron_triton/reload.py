"""A new bundle for a server that runs, under tritonserver's explicit model control.

tritonserver loads the new model beside the old one and switches when it is ready; answers that the old one has begun
it finishes (seen with 2.51). So both need memory for a while, and where there is not enough the load fails.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nemotron_triton.bundle import Bundle, bundle_link
from nemotron_triton.compatibility import check_loadable
from nemotron_triton.errors import ServerError, ServingError
from nemotron_triton.model_control import ModelControl, UnansweredError
from nemotron_triton.repository import configs
from nemotron_triton.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class Reload:
    """Puts the bundle that now lies at `bundle_path` in place of the one that a server serves from `repository`."""

    bundle_path: Path
    repository: Path
    run_folder: RunFolder
    control: ModelControl
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
                loaded = models[: number + isinstance(error, UnansweredError)]
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
            except UnansweredError as error:
                failures.append(f"{error} again: which bundle it serves is not known; start the server anew")
            except (ServingError, OSError) as error:
                failures.append(f"{model} could not be put back: {error}")
        return failures

    def _load(self, model: str) -> None:
        # Without a change in its folder tritonserver would not load a model again.
        os.utime(self.repository / model / "1" / "model.py")
        self.control.load(model, timeout_s=self.timeout_s)


def _point(link: Path, target: Path) -> None:
    """Turn *link* to *target* at once: there is no moment without one."""
    new = link.with_name(f".{link.name}-new")
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    new.replace(link)
