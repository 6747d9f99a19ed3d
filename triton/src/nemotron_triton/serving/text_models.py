"""The `preprocessing` and `postprocessing` Triton models: the prompt and parser functions for direct calls.

For callers who want the prompt, a token count, or the parse of a raw answer. Neither is on the streaming path; each is
a process of its own, and `--no-text-models` leaves both out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from nemotron_client import wire
from nemotron_client.events import ToolCall
from nemotron_triton.bundle import CHAT_TEMPLATE, bundle_beside
from nemotron_triton.chat import reasoning
from nemotron_triton.chat.answer import answer_rules, parse_whole
from nemotron_triton.chat.conversation import read_functions
from nemotron_triton.chat.tokens import TokenCodec
from nemotron_triton.errors import AccessError, RequestError, ServingError
from nemotron_triton.run_folder import verify_once
from nemotron_triton.serving.arguments import misfits
from nemotron_triton.serving.authentication import Authentication, forwarded_headers
from nemotron_triton.serving.call import triton_error
from nemotron_triton.serving.prompt_request import read_prompt, read_tool_choice
from nemotron_triton.serving.responses import Response, whole
from nemotron_triton.serving.settings import Settings
from nemotron_triton.serving.stub import load_error, prepare_stub
from nemotron_triton.serving.values import Values, check_sizes, json_value


class TextModel:
    """A model that answers each request with one response; *compute* makes its outputs of the values of its *inputs*.

    What it needs of the bundle is read when it is loaded: the files may be gone, or others, when a request comes.
    """

    def __init__(
        self,
        args: dict[str, str],
        pb_utils: Any,
        inputs: Sequence[wire.Tensor],
        compute: Callable[[TextModel, Values], Response],
    ) -> None:
        self._pb = pb_utils
        self._inputs = inputs
        self._compute = compute
        try:
            prepare_stub(pb_utils)
            self._authentication = Authentication.named_in()
            bundle = bundle_beside(args)
            verify_once(bundle, only=[bundle.tokenizer_path.relative_to(bundle.path).as_posix(), CHAT_TEMPLATE])
            self._profile = bundle.profile
            self._codec = TokenCodec(bundle.tokenizer_path)
            self._template = bundle.chat_template
            self._settings = Settings.read(args["model_config"])
        except ServingError as error:
            raise load_error(pb_utils, error) from error

    @classmethod
    def preprocessing(cls, args: dict[str, str], pb_utils: Any) -> TextModel:
        """Messages, or a finished prompt, to prompt text, token ids and their number."""
        return cls(args, pb_utils, wire.PREPROCESSING_INPUTS, cls._render)

    @classmethod
    def postprocessing(cls, args: dict[str, str], pb_utils: Any) -> TextModel:
        """A raw answer to reasoning, text and calls. Without `tools` any call counts."""
        return cls(args, pb_utils, wire.POSTPROCESSING_INPUTS, cls._parse)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """One response for every request: an error for a bad one, which does not hurt the others."""
        return [self._respond(request) for request in requests]

    def _respond(self, request: Any) -> Any:
        try:
            self._authentication.caller(forwarded_headers(request))
            values = {
                tensor: wire.read(tensor, input_tensor.as_numpy())
                for tensor in self._inputs
                if (input_tensor := self._pb.get_input_tensor_by_name(request, tensor.name)) is not None
            }
            check_sizes(values, self._settings)
            outputs = self._compute(self, values)
        except (ValueError, AccessError, RequestError) as error:
            failure = triton_error(self._pb, str(error), self._pb.TritonError.INVALID_ARG)
            return self._pb.InferenceResponse(output_tensors=[], error=failure)
        tensors = [self._pb.Tensor(tensor.name, wire.array(tensor, value)) for tensor, value in outputs.items()]
        return self._pb.InferenceResponse(output_tensors=tensors)

    def _render(self, values: Values) -> Response:
        prompt = read_prompt(values, self._profile, self._settings, template=self._template)
        ids = self._codec.encode(prompt)
        return {wire.PROMPT: prompt.text, wire.INPUT_IDS: ids, wire.NUM_INPUT_TOKENS: len(ids)}

    def _parse(self, values: Values) -> Response:
        tools = json_value(values, wire.TOOLS, self._settings.max_tools)
        functions = None if tools is None else read_functions(tools)
        begins = reasoning.begins(self._profile.reasoning_format, thinking=values.get(wire.THINKING, False))
        choice, parallel = read_tool_choice(values, functions or ()), values.get(wire.PARALLEL_TOOL_CALLS, True)
        rules = answer_rules(self._profile, functions, begins=begins, choice=choice, parallel=parallel)
        cut = values.get(wire.TRUNCATED, False)
        events, problems = parse_whole(values[wire.RAW_OUTPUT], rules, cut=cut)
        calls = [event for event in events if isinstance(event, ToolCall)]
        problems = [*problems, *misfits(calls, rules.functions or {})]
        return {
            wire.REASONING_OUTPUT: "",
            wire.TOOL_CALLS: "[]",
            **whole(events),
            wire.FINISH_REASON: "length" if cut else "tool_calls" if calls else "stop",
            wire.PROBLEMS: json.dumps([asdict(problem) for problem in problems], ensure_ascii=False),
        }
