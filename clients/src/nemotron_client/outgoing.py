"""What goes out for each method of the clients: the arguments, checked, as one request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nemotron_client import identity, wire
from nemotron_client.answer_reader import AnswerReader
from nemotron_client.attempts import Attempts
from nemotron_client.description_reader import DescriptionReader
from nemotron_client.endpoints import Endpoints
from nemotron_client.errors import StreamBroken
from nemotron_client.json_text import Json
from nemotron_client.messages import MessageLike, openai_messages
from nemotron_client.options import ChatOptions, GenerateOptions, RenderOptions, tensor_values
from nemotron_client.protocol import infer_request, output_values, triton_messages
from nemotron_client.response_reader import ResponseReader
from nemotron_client.settings import ClientSettings
from nemotron_client.status import Model, Prompt
from nemotron_client.tools import ToolLike, openai_tools

MODELS = (wire.MODEL_NAME, "preprocessing", "postprocessing")


@dataclass(frozen=True)
class Outgoing:
    """One request with its limits; it can be sent again as long as no response has come.

    `request_id` is its name in the server's log; empty where the server itself is asked, and not a model. There are to
    be as many answers as `choices` says; what `describes` asks only what is served.
    """

    message: Any
    request_id: str
    limits: ClientSettings
    choices: int = 1
    describes: bool = False

    def limited_to(self, remaining_s: float) -> Any:
        """The message, by which a model too stops when the time is over and nobody waits for its answer."""
        if self.request_id:
            # Microseconds, as Triton has it.
            self.message.parameters["timeout"].int64_param = int(remaining_s * 1e6)
        return self.message

    def attempts(self, endpoints: Endpoints) -> Attempts:
        """Its attempts; the time runs from now."""
        limits = self.limits
        return Attempts(
            endpoints, timeout_s=limits.timeout_s, max_retries=limits.max_retries, request_id=self.request_id
        )

    def reader(self, url: str, attempts: Attempts) -> ResponseReader[Any]:
        """Reads what *url* answers to it."""
        if self.describes:
            return DescriptionReader(url)
        return AnswerReader(
            url, self.request_id, begin_s=attempts.begin_s, retries=attempts.retries, choices=self.choices
        )


def chat(
    settings: ClientSettings,
    messages: Sequence[MessageLike] | Json,
    tools: Sequence[ToolLike] | Json | None,
    thinking: bool | None,
    options: ChatOptions,
) -> Outgoing:
    """A conversation for the `nemotron` model; `InvalidRequest` when it cannot be sent."""
    values = tensor_values(options, ChatOptions.__annotations__)
    values[wire.MESSAGES.name] = openai_messages(messages)
    values[wire.TOOLS.name] = openai_tools(tools) if tools else None
    return _streamed(settings, values, thinking, options)


def generate(settings: ClientSettings, prompt: str, thinking: bool | None, options: GenerateOptions) -> Outgoing:
    """A finished prompt for the `nemotron` model; `InvalidRequest` when it cannot be sent."""
    values = tensor_values(options, GenerateOptions.__annotations__)
    values[wire.TEXT_INPUT.name] = prompt
    return _streamed(settings, values, thinking, options)


def describe(settings: ClientSettings, timeout_s: float | None) -> Outgoing:
    """The question for what the `nemotron` model is."""
    request_id = identity.request_id({})
    message = infer_request(MODELS[0], {wire.DESCRIBE.name: True}, request_id=request_id)
    return Outgoing(message, request_id, settings.with_options(timeout_s, None), describes=True)


def render(
    settings: ClientSettings,
    messages: Sequence[MessageLike] | Json | None,
    prompt: str | None,
    tools: Sequence[ToolLike] | Json | None,
    thinking: bool | None,
    options: RenderOptions,
) -> Outgoing:
    """A conversation, or a *prompt*, for the `preprocessing` model; `InvalidRequest` when it cannot be sent."""
    values = tensor_values(options, RenderOptions.__annotations__)
    # Without both it is the messages that are missing, and with both the server refuses it.
    values[wire.MESSAGES.name] = openai_messages(messages) if messages is not None or prompt is None else None
    values[wire.TEXT_INPUT.name] = prompt
    values[wire.TOOLS.name] = openai_tools(tools) if tools else None
    values[wire.THINKING.name] = thinking
    return _for_model(settings.with_options(options.get("timeout_s"), None), MODELS[1], values, identity.request_id({}))


def metadata(settings: ClientSettings, name: str, timeout_s: float | None) -> Outgoing:
    """The question for the description of a model."""
    message = triton_messages().ModelMetadataRequest(name=name)
    return Outgoing(message, "", settings.with_options(timeout_s, None))


def prompt_of(response: Any, url: str) -> Prompt:
    """What `preprocessing` at *url* made of a conversation."""
    try:
        values = output_values(response)
        return Prompt(text=values[wire.PROMPT.name], token_ids=tuple(values[wire.INPUT_IDS.name]))
    except (LookupError, TypeError, ValueError) as error:
        raise StreamBroken(f"{url} sent a response that this client cannot read: {error!r:.300}") from error


def model_of(metadata: Any) -> Model:
    """The model that a `ModelMetadataResponse` describes."""
    return Model(
        name=metadata.name,
        versions=tuple(metadata.versions),
        inputs=tuple(tensor.name for tensor in metadata.inputs),
        outputs=tuple(tensor.name for tensor in metadata.outputs),
    )


def _streamed(
    settings: ClientSettings, values: dict[str, Any], thinking: bool | None, options: GenerateOptions
) -> Outgoing:
    values[wire.THINKING.name] = thinking
    values[wire.STREAM.name] = True
    limits = settings.with_options(options.get("timeout_s"), options.get("max_retries"))
    limits = limits.with_metadata(identity.metadata(options))
    return _for_model(limits, MODELS[0], values, identity.request_id(options), choices=options.get("n") or 1)


def _for_model(
    limits: ClientSettings, model: str, values: Mapping[str, Any], request_id: str, *, choices: int = 1
) -> Outgoing:
    return Outgoing(infer_request(model, values, request_id=request_id), request_id, limits, choices)
