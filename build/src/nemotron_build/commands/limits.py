"""The limits that an engine is compiled for, or that a runtime keeps to."""

from __future__ import annotations

from dataclasses import dataclass

from nemotron_build.errors import BuildError


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Sequences at once, and tokens: of a prompt, of one step over all sequences, of one sequence with its answer."""

    max_batch_size: int
    max_input_len: int
    max_num_tokens: int
    max_seq_len: int

    def __post_init__(self) -> None:
        batch, prompt, step, whole = self.max_batch_size, self.max_input_len, self.max_num_tokens, self.max_seq_len
        if min(batch, prompt, step) < 1:
            raise BuildError("every limit of an engine is at least 1")
        if prompt >= whole:
            raise BuildError(f"a prompt of max_input_len ({prompt}) leaves no token of max_seq_len ({whole})")
        if step < batch:
            raise BuildError(f"max_num_tokens ({step}) is below max_batch_size ({batch}): one token each")
