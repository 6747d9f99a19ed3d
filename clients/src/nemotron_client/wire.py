"""The tensors of the Triton models: every name, type and shape, written once for server, client and `config.pbtxt`.

Inputs of `nemotron` keep the names of TensorRT-LLM's `tensorrt_llm_bls` model where it has them. Every tensor is
`[1]` per request, so `[1, 1]` on the wire (the models have a batch dimension of at most 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

MODEL_NAME = "nemotron"
DType = Literal["BYTES", "BOOL", "INT32", "UINT64", "FP32"]
NUMPY: dict[DType, Any] = {
    "BYTES": np.object_,
    "BOOL": np.bool_,
    "INT32": np.int32,
    "UINT64": np.uint64,
    "FP32": np.float32,
}


@dataclass(frozen=True)
class Tensor:
    """One tensor: its name on the wire, its Triton data type, and whether a request may leave it out."""

    name: str
    dtype: DType
    optional: bool = True
    dims: tuple[int, ...] = (1,)


# What the request says.
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
END_ID = Tensor("end_id", "INT32")  # -1: generate on past the model's end tokens
# Accepted for clients of tensorrt_llm_bls; the counts are always returned.
RETURN_NUM_INPUT_TOKENS = Tensor("return_num_input_tokens", "BOOL")
RETURN_NUM_OUTPUT_TOKENS = Tensor("return_num_output_tokens", "BOOL")

# What a response carries: the first three are deltas, the rest come with the last response.
TEXT_OUTPUT = Tensor("text_output", "BYTES")
REASONING_OUTPUT = Tensor("reasoning_output", "BYTES")
TOOL_CALLS = Tensor("tool_calls", "BYTES")  # JSON: list of calls, OpenAI delta shape
FINISH_REASON = Tensor("finish_reason", "BYTES")
PROBLEMS = Tensor("problems", "BYTES")  # JSON: list of what was wrong with the answer; left out when nothing was
NUM_INPUT_TOKENS = Tensor("num_input_tokens", "INT32")
NUM_OUTPUT_TOKENS = Tensor("num_output_tokens", "INT32")
NUM_REASONING_TOKENS = Tensor("num_reasoning_tokens", "INT32")

# The models beside `nemotron`, off the streaming path.
PROMPT = Tensor("prompt", "BYTES")
INPUT_IDS = Tensor("input_ids", "INT32", dims=(-1,))
RAW_OUTPUT = Tensor("raw_output", "BYTES", optional=False)
TRUNCATED = Tensor("truncated", "BOOL")

INPUTS = (
    TEXT_INPUT,
    MESSAGES,
    TOOLS,
    TOOL_CHOICE,
    PARALLEL_TOOL_CALLS,
    THINKING,
    CHAT_TEMPLATE_KWARGS,
    STREAM,
    MAX_TOKENS,
    TEMPERATURE,
    TOP_P,
    TOP_K,
    SEED,
    REPETITION_PENALTY,
    PRESENCE_PENALTY,
    FREQUENCY_PENALTY,
    END_ID,
    RETURN_NUM_INPUT_TOKENS,
    RETURN_NUM_OUTPUT_TOKENS,
)
OUTPUTS = (
    TEXT_OUTPUT,
    REASONING_OUTPUT,
    TOOL_CALLS,
    FINISH_REASON,
    PROBLEMS,
    NUM_INPUT_TOKENS,
    NUM_OUTPUT_TOKENS,
    NUM_REASONING_TOKENS,
)
PREPROCESSING_INPUTS = (Tensor(MESSAGES.name, "BYTES", optional=False), TOOLS, THINKING, CHAT_TEMPLATE_KWARGS)
PREPROCESSING_OUTPUTS = (PROMPT, INPUT_IDS, NUM_INPUT_TOKENS)
POSTPROCESSING_INPUTS = (RAW_OUTPUT, TRUNCATED, TOOLS, TOOL_CHOICE, PARALLEL_TOOL_CALLS, THINKING)
POSTPROCESSING_OUTPUTS = (TEXT_OUTPUT, REASONING_OUTPUT, TOOL_CALLS, FINISH_REASON, PROBLEMS)


def read(tensor: Tensor, array: Any) -> Any:
    """The one value in *array* as str, bool, int or float; `ValueError` says what is wrong with it."""
    values = array.reshape(-1)
    if len(values) != 1:
        raise ValueError(f"{tensor.name} must hold one value, got {len(values)}")
    value = values[0]
    if tensor.dtype != "BYTES":
        return value.item()
    if isinstance(value, str):
        return value
    try:
        return bytes(value).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{tensor.name} is not UTF-8: {error.reason} at byte {error.start}") from error


def array(tensor: Tensor, value: Any) -> Any:
    """*value* as the `[1, 1]` array that a request carries (numpy dtype of the tensor; text as UTF-8 bytes)."""
    return np.array([[value.encode("utf-8") if isinstance(value, str) else value]], dtype=NUMPY[tensor.dtype])
