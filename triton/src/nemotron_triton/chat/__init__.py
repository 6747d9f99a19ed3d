"""Prompts in, thinking and tool calls out: pure functions, no engine and no Triton."""
