"""The command group, and the one place where errors become text.

Commands import what they need when they run, so that `nemotron chat` works where only the client is installed.
"""

from __future__ import annotations

import importlib
import signal
import sys
from typing import Any

import click

from nemotron_build.errors import DoesNotFitError, RefusedError
from nemotron_cli.status import DOES_NOT_FIT, REFUSED
from nemotron_triton.extras import how_to_install

# Each command's module and its line in the help, which must not need the module's own packages.
_COMMANDS = {
    "plan": ("nemotron_cli.plan", "Say whether a model fits a GPU, and how fast it can be."),
    "gpus": ("nemotron_cli.gpus", "List the GPUs that are known."),
    "build-engine": ("nemotron_cli.build_engine", "Build an engine bundle from a checkpoint."),
    "model-repo": ("nemotron_cli.model_repo", "Write a Triton model repository for a bundle."),
    "quality": ("nemotron_cli.quality", "Measure what each precision costs a checkpoint."),
    "verify": ("nemotron_cli.verify", "Check a bundle, and whether this machine can load it."),
    "doctor": ("nemotron_cli.doctor", "Say what this machine can build and serve, and what it lacks."),
    "serve": ("nemotron_cli.serve", "Serve a bundle with tritonserver."),
    "chat": ("nemotron_cli.chat.command", "Ask a served model."),
    "models": ("nemotron_cli.models", "List the models that are known."),
    "render": ("nemotron_cli.render", "Print the prompt that a model gets to read."),
    "parse": ("nemotron_cli.parse", "Take a raw answer apart."),
    "compare-template": (
        "nemotron_cli.compare_template",
        "Compare our prompts with a checkpoint's own template.",
    ),
}
# What an installation without extras leaves out, and the extra that brings it.
_EXTRAS = {
    "gguf": "cpu",
    "xllamacpp": "cpu",
    "safetensors": "cpu",
    "ml_dtypes": "cpu",
    "pynvml": "build",
    "tokenizers": "serve",
    "jinja2": "serve",
    "pydantic": "serve",
    "rich": "serve",
    "yaml": "serve",
}


class _Refused(click.ClickException):
    exit_code = REFUSED


class _DoesNotFit(click.ClickException):
    exit_code = DOES_NOT_FIT


class _Group(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        if name not in _COMMANDS:
            return None
        try:
            command: click.Command = importlib.import_module(_COMMANDS[name][0]).command
        except ModuleNotFoundError as error:
            raise _missing(error) from error
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in _COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        # A SIGTERM unwinds like Ctrl-C, so that temporary files and child processes go.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise SystemExit(128 + signal.SIGINT) from error
        except ModuleNotFoundError as error:
            raise _missing(error) from error
        except OSError as error:
            if isinstance(error, BrokenPipeError):
                # The reader of our output went away, as `| head` does: nobody is left to tell.
                sys.stderr.close()
                raise SystemExit(1) from error
            raise click.ClickException(
                f"{error.strerror or error}: {error.filename}" if error.filename else str(error)
            ) from error
        except Exception as error:
            if not isinstance(error, _our_errors()):
                raise
            failures = {RefusedError: _Refused, DoesNotFitError: _DoesNotFit}
            raise failures.get(type(error), click.ClickException)(str(error)) from error


def _our_errors() -> tuple[type[Exception], ...]:
    from nemotron_build.errors import BuildError
    from nemotron_client.errors import ClientError
    from nemotron_triton.errors import ServingError

    return (BuildError, ServingError, ClientError)


def _missing(error: ModuleNotFoundError) -> click.ClickException:
    extra = _EXTRAS.get((error.name or "").partition(".")[0])
    if extra is None:
        raise error
    if sys.version_info >= (3, 13):
        return click.ClickException(
            f"this command needs {error.name} and Python 3.10 to 3.12: Triton's Python stub needs numpy<2, "
            f"which has no wheels for Python {sys.version_info.major}.{sys.version_info.minor}"
        )
    return click.ClickException(f"this command needs {error.name}: {how_to_install(extra)}")


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="nemotron-triton")
def main() -> None:
    """From a Nemotron Nano checkpoint to a served model, in three steps.

    \b
      nemotron build-engine CHECKPOINT --gpu cpu --output BUNDLE
      nemotron serve BUNDLE
      nemotron chat "What is an 18% tip on $100?" --thinking on

    Exit status: 0 done, 1 failed (one line on stderr says why), 2 wrong usage, 3 it
    does not fit the GPU, 4 GPU, model, precision and engine kind do not go together
    (the line names the nearest that do), 5 a bundle that another machine has to
    finish, 130 or 143 interrupted.
    """  # noqa: D301 - click wants the control character
