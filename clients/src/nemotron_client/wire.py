"""The tensors of the Triton models: every name, type and shape, written once for server, client and `config.pbtxt`.

Inputs of `nemotron` keep the names of TensorRT-LLM's `tensorrt_llm_bls` model where it has them. On the wire a batch
dimension of 1 comes before a tensor's own dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

MODEL_NAME = "nemotron"
# What the messages of errors inside a stream begin with, before ": ": gRPC's names, for Triton gives such no status.
STATUSES = (
    "INVALID_ARGUMENT",
    "UNAUTHENTICATED",
    "RESOURCE_EXHAUSTED",
    "UNAVAILABLE",
    "DEADLINE_EXCEEDED",
    "CANCELLED",
    "INTERNAL",
)
# The header that carries the caller's secret; gRPC's begins with `triton-grpc-protocol-`.
SECRET_HEADER = "nemotron-secret"  # noqa: S105 - a name
# The header in which a gateway says for whom it asks.
CALLER_HEADER = "nemotron-caller"
# How the refusal of a server that is stopping begins, behind "UNAVAILABLE: ": by it clients know it from a full queue.
STOPPING = "the server is stopping"
# In one tensor of a request.
MAX_VALUES = 1024
DType = Literal["BYTES", "BOOL", "INT32", "UINT64", "FP32"]
# numpy's names of them; itself it is not needed to name tensors.
NUMPY: dict[DType, str] = {"BYTES": "O", "BOOL": "?", "INT32": "<i4", "UINT64": "<u8", "FP32": "<f4"}


@dataclass(frozen=True)
class Tensor:
    """One tensor: its name on the wire, its Triton data type, and whether a request may leave it out.

    `dims` `(1,)` is one value, `(-1,)` a list of them, `(-1, -1)` a list of rows. It is the same tensor where one model
    requires it and another does not, and the key of its value in requests and responses.
    """

    name: str
    dtype: DType
    optional: bool = field(default=True, compare=False)
    dims: tuple[int, ...] = (1,)

    def __str__(self) -> str:
        """Its name, as messages have it."""
        return self.name

    def __hash__(self) -> int:
        # Of a string it is kept: a request looks some forty tensors up.
        return hash(self.name)


# What to answer.
TEXT_INPUT = Tensor("text_input", "BYTES")  # a finished prompt, instead of messages
MESSAGES = Tensor("messages", "BYTES")  # JSON: OpenAI-shaped messages
TOOLS = Tensor("tools", "BYTES")  # JSON: OpenAI-shaped tools
TOOL_CHOICE = Tensor("tool_choice", "BYTES")  # auto, none, required, or JSON that names a function, as OpenAI has it
PARALLEL_TOOL_CALLS = Tensor("parallel_tool_calls", "BOOL")  # false: one call at most
THINKING = Tensor("thinking", "BOOL")
CHAT_TEMPLATE_KWARGS = Tensor("chat_template_kwargs", "BYTES")  # JSON: object of the model's template options
STREAM = Tensor("stream", "BOOL")
# How to generate.
MAX_TOKENS = Tensor("max_tokens", "INT32")
TEMPERATURE = Tensor("temperature", "FP32")
TOP_P = Tensor("top_p", "FP32")
TOP_K = Tensor("top_k", "INT32")
SEED = Tensor("seed", "UINT64")
REPETITION_PENALTY = Tensor("repetition_penalty", "FP32")
PRESENCE_PENALTY = Tensor("presence_penalty", "FP32")
FREQUENCY_PENALTY = Tensor("frequency_penalty", "FP32")
MIN_P = Tensor("min_p", "FP32")
MIN_TOKENS = Tensor("min_tokens", "INT32")
NO_REPEAT_NGRAM_SIZE = Tensor("no_repeat_ngram_size", "INT32")
END_ID = Tensor("end_id", "INT32")  # one more token that ends the answer; -1: generate on past the model's own
STOP_TOKEN_IDS = Tensor("stop_token_ids", "INT32", dims=(-1,))  # more of them
STOP_WORDS = Tensor("stop_words", "BYTES", dims=(-1,))  # the answer ends before the first of these
BAD_WORDS = Tensor("bad_words", "BYTES", dims=(-1,))
EMBEDDING_BIAS_WORDS = Tensor("embedding_bias_words", "BYTES", dims=(-1,))  # whose tokens get a logit bias
EMBEDDING_BIAS_WEIGHTS = Tensor("embedding_bias_weights", "FP32", dims=(-1,))
GUIDED_DECODING_GUIDE_TYPE = Tensor("guided_decoding_guide_type", "BYTES")  # json, json_schema, regex
GUIDED_DECODING_GUIDE = Tensor("guided_decoding_guide", "BYTES")
NUM_RETURN_SEQUENCES = Tensor("num_return_sequences", "INT32")  # answers to one request
PRIORITY = Tensor("priority", "INT32")  # 0 or 1; what has 1 begins when nothing waits that has 0
# What to return.
EXCLUDE_INPUT_IN_OUTPUT = Tensor("exclude_input_in_output", "BOOL")  # false: a whole answer begins with text_input
RETURN_LOG_PROBS = Tensor("return_log_probs", "BOOL")
TOP_LOGPROBS = Tensor("top_logprobs", "INT32")  # alternatives to return for each token
# Accepted for clients of tensorrt_llm_bls where they change nothing; the counts are always returned.
PAD_ID = Tensor("pad_id", "INT32")
BEAM_WIDTH = Tensor("beam_width", "INT32")
LENGTH_PENALTY = Tensor("length_penalty", "FP32")
RETURN_CONTEXT_LOGITS = Tensor("return_context_logits", "BOOL")
RETURN_GENERATION_LOGITS = Tensor("return_generation_logits", "BOOL")
RETURN_PERF_METRICS = Tensor("return_perf_metrics", "BOOL")
RETURN_NUM_INPUT_TOKENS = Tensor("return_num_input_tokens", "BOOL")
RETURN_NUM_OUTPUT_TOKENS = Tensor("return_num_output_tokens", "BOOL")
# Of both kinds, what came later.
LOGIT_BIAS = Tensor("logit_bias", "BYTES")  # JSON: object of biases by token id, OpenAI shape
STREAM_TOOL_CALLS = Tensor("stream_tool_calls", "BOOL")  # true: arguments of calls come in pieces, as they are written
# How long to think.
MAX_THINKING_TOKENS = Tensor("max_thinking_tokens", "INT32")  # 0: not at all
REASONING_EFFORT = Tensor("reasoning_effort", "BYTES")  # none, minimal, low, medium, high
INCLUDE_REASONING = Tensor("include_reasoning", "BOOL")  # false: the thinking is counted and not returned
# More of what to answer.
CONTINUE_FINAL_MESSAGE = Tensor("continue_final_message", "BOOL")  # true: the answer goes on from the assistant's last

# For gateways.
DESCRIBE = Tensor("describe", "BOOL")  # true, and alone: nothing is generated, the response says what is served
CLAMP_MAX_TOKENS = Tensor("clamp_max_tokens", "BOOL")  # true: larger max_tokens than there is room for mean that room

# Every tensor so far.
INPUTS = tuple(value for value in globals().values() if isinstance(value, Tensor))

# What a response carries: the first three are deltas, the rest come with the last response.
TEXT_OUTPUT = Tensor("text_output", "BYTES")
REASONING_OUTPUT = Tensor("reasoning_output", "BYTES")
TOOL_CALLS = Tensor("tool_calls", "BYTES")  # JSON: list of calls, OpenAI delta shape
FINISH_REASON = Tensor("finish_reason", "BYTES")
PROBLEMS = Tensor("problems", "BYTES")  # JSON: list of what was wrong with the answer; left out when nothing was
NUM_INPUT_TOKENS = Tensor("num_input_tokens", "INT32")
NUM_OUTPUT_TOKENS = Tensor("num_output_tokens", "INT32")
NUM_REASONING_TOKENS = Tensor("num_reasoning_tokens", "INT32")
NUM_CACHED_TOKENS = Tensor("num_cached_tokens", "INT32")  # of the prompt; left out where the engine does not tell
# With every response of a request that asks for them.
SEQUENCE_INDEX = Tensor("sequence_index", "INT32")  # which of several answers
OUTPUT_LOG_PROBS = Tensor("output_log_probs", "FP32", dims=(-1, -1))  # one row: of each token that came
CUM_LOG_PROBS = Tensor("cum_log_probs", "FP32", dims=(-1,))  # one value: their sum so far
LOGPROBS = Tensor("logprobs", "BYTES")  # JSON: list of tokens with alternatives, OpenAI shape, and their `part`
# With an answer's last response.
STOP_REASON = Tensor("stop_reason", "BYTES")  # JSON: the stop word, or the end token's id; left out without either
THINKING_CUT = Tensor("thinking_cut", "BOOL")  # true: its budget ended the thinking; left out otherwise
# Alone, in the response to `describe`.
DESCRIPTION = Tensor("description", "BYTES")  # JSON: object of the model's names, its context and its bundle

OUTPUTS = tuple(value for value in globals().values() if isinstance(value, Tensor) and value not in INPUTS)

# The models beside `nemotron`, off the streaming path.
PROMPT = Tensor("prompt", "BYTES")
INPUT_IDS = Tensor("input_ids", "INT32", dims=(-1,))
RAW_OUTPUT = Tensor("raw_output", "BYTES", optional=False)
TRUNCATED = Tensor("truncated", "BOOL")

PREPROCESSING_INPUTS = (
    MESSAGES,
    TOOLS,
    THINKING,
    CHAT_TEMPLATE_KWARGS,
    CONTINUE_FINAL_MESSAGE,
    TEXT_INPUT,
    TOOL_CHOICE,
    MAX_THINKING_TOKENS,
    REASONING_EFFORT,
)
PREPROCESSING_OUTPUTS = (PROMPT, INPUT_IDS, NUM_INPUT_TOKENS)
POSTPROCESSING_INPUTS = (RAW_OUTPUT, TRUNCATED, TOOLS, TOOL_CHOICE, PARALLEL_TOOL_CALLS, THINKING)
POSTPROCESSING_OUTPUTS = (TEXT_OUTPUT, REASONING_OUTPUT, TOOL_CALLS, FINISH_REASON, PROBLEMS)


def read(tensor: Tensor, array: Any) -> Any:
    """The value in *array* as str, bool, int or float, or a tuple of them; `ValueError` says what is wrong with it."""
    if array.size > MAX_VALUES:
        raise ValueError(f"{tensor.name} holds {array.size} values; at most {MAX_VALUES} are accepted")
    if tensor.dtype != "BYTES":
        values = array.reshape(-1).tolist()
    else:
        values = [_text(tensor, value) for value in array.reshape(-1)]
    if tensor.dims != (1,):
        return tuple(values)
    if len(values) != 1:
        raise ValueError(f"{tensor.name} must hold one value, got {len(values)}")
    return values[0]


def array(tensor: Tensor, value: Any) -> Any:
    """*value* as the array that a request carries, batch dimension first (text as UTF-8 bytes).

    It is a value, a list or a list of rows of equal length, as the tensor's `dims` say.
    """
    import numpy as np

    if tensor.dtype == "BYTES":
        value = value.encode("utf-8") if tensor.dims == (1,) else [text.encode("utf-8") for text in value]
    return np.array([[value] if tensor.dims == (1,) else value], dtype=NUMPY[tensor.dtype])


def _text(tensor: Tensor, value: Any) -> str:
    if isinstance(value, str):
        return value
    try:
        return bytes(value).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{tensor.name} is not UTF-8: {error.reason} at byte {error.start}") from error
