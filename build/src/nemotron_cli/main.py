"""The command group, and the one place where errors become text.

Commands import what they need when they run, so that `nemotron chat` works where only the client is installed.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from typing import Any

import click

from nemotron_build.errors import DoesNotFitError, RefusedError, SettingError
from nemotron_cli.extras import missing
from nemotron_cli.status import DOES_NOT_FIT, REFUSED, WRONG_USAGE
from nemotron_client.spelling import did_you_mean
from nemotron_triton.errors import UnknownProfileError

# Each command is the `command` of its module; its line in the help must not need the packages that this module imports.
_COMMANDS = {
    "plan": "Say whether a model fits a GPU, and how fast it can be.",
    "gpus": "List the GPUs that are known.",
    "build-engine": "Build an engine bundle from a checkpoint.",
    "model-repo": "Write a Triton model repository for a bundle.",
    "quality": "Measure what each precision costs a checkpoint.",
    "verify": "Check a bundle, and whether this machine can load it.",
    "doctor": "Say what this machine can build and serve, and what it lacks.",
    "serve": "Serve a bundle with tritonserver.",
    "gateway": "Offer served models to clients of OpenAI's API.",
    "reload": "Have a running server take a new bundle.",
    "chat": "Ask a served model.",
    "models": "List the models that are known.",
    "render": "Print the prompt that a model gets to read.",
    "parse": "Take a raw answer apart.",
    "compare-template": "Compare our prompts with a checkpoint's own template.",
}


class _Refused(click.ClickException):
    exit_code = REFUSED


class _DoesNotFit(click.ClickException):
    exit_code = DOES_NOT_FIT


class _WrongUsage(click.ClickException):
    exit_code = WRONG_USAGE


_FAILURES = {
    RefusedError: _Refused,
    DoesNotFitError: _DoesNotFit,
    SettingError: _WrongUsage,
    UnknownProfileError: _WrongUsage,
}


class _Group(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        if name not in _COMMANDS:
            return None
        if name in ("chat", "gateway"):
            # Before gRPC is imported: what its log lines say is in our errors. The client leaves that to its programs.
            os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        command: click.Command = importlib.import_module(f"nemotron_cli.{name.replace('-', '_')}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in _COMMANDS and not args[0].startswith("-"):
            hint = did_you_mean(args[0], _COMMANDS) or "`nemotron --help` lists them"
            raise click.UsageError(f"there is no command {args[0]!r}; {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        # A SIGTERM unwinds like Ctrl-C, so that temporary files and child processes go.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise SystemExit(128 + signal.SIGINT) from error
        except ModuleNotFoundError as error:
            raise missing(error) from error
        except BrokenPipeError:
            raise  # the reader of our output went away, as `| head` does: click ends without a message
        except OSError as error:
            text = str(error.strerror or error)
            raise click.ClickException(f"{text}: {error.filename}" if error.filename else text) from error
        except _our_errors() as error:
            raise _FAILURES.get(type(error), click.ClickException)(str(error)) from error


def _our_errors() -> tuple[type[Exception], ...]:
    from nemotron_build.errors import BuildError
    from nemotron_client.errors import ClientError
    from nemotron_gateway.errors import GatewayError
    from nemotron_triton.errors import ServingError

    return (BuildError, ServingError, ClientError, GatewayError)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="nemotron-triton")
def main() -> None:
    """From a Nemotron Nano checkpoint to a served model, in three steps.

    \b
      nemotron build-engine CHECKPOINT --gpu cpu --output BUNDLE
      nemotron serve BUNDLE
      nemotron chat 'What is an 18% tip on $100?' --thinking on

    Exit status: 0 done, 1 failed (one line on stderr says why), 2 wrong usage, 3 it
    does not fit the GPU, 4 GPU, model, precision and engine kind do not go together
    (the line names the nearest that do), 5 a bundle that another machine has to
    finish, 130 or 143 interrupted.
    """  # noqa: D301 - click wants the control character
