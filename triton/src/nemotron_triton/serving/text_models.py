"""The `preprocessing` and `postprocessing` Triton models: the prompt and parser functions for direct calls.

For callers who want the prompt, a token count, or the parse of a raw answer. Neither is on the streaming path; each is
a process of its own, and `--no-text-models` leaves both out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from nemotron_client import wire
from nemotron_client.events import ContentDelta, ReasoningDelta, ToolCall
from nemotron_triton.bundle import CHAT_TEMPLATE, bundle_beside
from nemotron_triton.chat import reasoning
from nemotron_triton.chat.answer import answer_rules, parse_whole
from nemotron_triton.chat.profiles import Profile
from nemotron_triton.chat.render import render_prompt
from nemotron_triton.chat.tokens import TokenCodec
from nemotron_triton.errors import RequestError, ServingError
from nemotron_triton.run_folder import verify_once
from nemotron_triton.serving.call import triton_error
from nemotron_triton.serving.conversation_request import read_chat, read_render_options, read_tool_choice, read_tools
from nemotron_triton.serving.responses import Response
from nemotron_triton.serving.settings import Settings
from nemotron_triton.serving.stub import prepare_stub
from nemotron_triton.serving.values import Values, check_sizes


class TextModel:
    """A model that answers each request with one response, computed by a plain function of its input values.

    *compute* may raise `RequestError`.
    """

    def __init__(self, pb_utils: Any, inputs: Sequence[wire.Tensor], *, compute: Callable[[Values], Response]) -> None:
        self._pb = pb_utils
        self._inputs = inputs
        self._compute = compute

    @classmethod
    def preprocessing(cls, args: dict[str, str], pb_utils: Any) -> TextModel:
        """Messages to prompt text, token ids and their number."""
        model = _open(args, pb_utils)

        def compute(values: Values) -> Response:
            check_sizes(values, model.settings)
            conversation, _ = read_chat(values, model.settings)
            options = replace(read_render_options(values), template=model.template)
            prompt = render_prompt(model.profile, conversation, options)
            ids = model.codec.encode(prompt)
            return {wire.PROMPT: prompt.text, wire.INPUT_IDS: ids, wire.NUM_INPUT_TOKENS: len(ids)}

        return cls(pb_utils, wire.PREPROCESSING_INPUTS, compute=compute)

    @classmethod
    def postprocessing(cls, args: dict[str, str], pb_utils: Any) -> TextModel:
        """A raw answer to reasoning, text and calls. Without `tools` any call counts."""
        model = _open(args, pb_utils)

        def compute(values: Values) -> Response:
            check_sizes(values, model.settings)
            functions = read_tools(values, model.settings)
            thinking = values.get(wire.THINKING, False)
            rules = answer_rules(
                model.profile,
                functions,
                begins=reasoning.begins(model.profile.reasoning_format, thinking=thinking),
                choice=read_tool_choice(values, functions or ()),
                parallel=values.get(wire.PARALLEL_TOOL_CALLS, True),
            )
            cut = values.get(wire.TRUNCATED, False)
            events, problems = parse_whole(values[wire.RAW_OUTPUT], rules, cut=cut)
            calls = [event.as_delta() for event in events if isinstance(event, ToolCall)]
            return {
                wire.TEXT_OUTPUT: "".join(event.text for event in events if isinstance(event, ContentDelta)),
                wire.REASONING_OUTPUT: "".join(event.text for event in events if isinstance(event, ReasoningDelta)),
                wire.TOOL_CALLS: json.dumps(calls, ensure_ascii=False),
                wire.FINISH_REASON: "length" if cut else "tool_calls" if calls else "stop",
                wire.PROBLEMS: json.dumps([asdict(problem) for problem in problems], ensure_ascii=False),
            }

        return cls(pb_utils, wire.POSTPROCESSING_INPUTS, compute=compute)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """A response for every request; a bad one gets an error and does not hurt the others."""
        return [self._respond(request) for request in requests]

    def _respond(self, request: Any) -> Any:
        try:
            values = {
                tensor: wire.read(tensor, given.as_numpy())
                for tensor in self._inputs
                if (given := self._pb.get_input_tensor_by_name(request, tensor.name)) is not None
            }
            outputs = self._compute(values)
        except (ValueError, RequestError) as error:
            failure = triton_error(self._pb, str(error), self._pb.TritonError.INVALID_ARG)
            return self._pb.InferenceResponse(output_tensors=[], error=failure)
        return self._pb.InferenceResponse(
            output_tensors=[
                self._pb.Tensor(tensor.name, wire.array(tensor, value)) for tensor, value in outputs.items()
            ]
        )


@dataclass(frozen=True, kw_only=True)
class _Opened:
    """What both models read when they are loaded: a bundle's files may be gone, or others, when a request comes."""

    profile: Profile
    codec: TokenCodec
    template: str | None
    settings: Settings


def _open(args: dict[str, str], pb_utils: Any) -> _Opened:
    prepare_stub(pb_utils)
    try:
        bundle = bundle_beside(args)
        verify_once(bundle, only=[bundle.tokenizer_path.relative_to(bundle.path).as_posix(), CHAT_TEMPLATE])
        return _Opened(
            profile=bundle.profile,
            codec=TokenCodec(bundle.tokenizer_path),
            template=bundle.chat_template,
            settings=Settings.read(args["model_config"]),
        )
    except ServingError as error:
        raise pb_utils.TritonModelException(str(error)) from error
