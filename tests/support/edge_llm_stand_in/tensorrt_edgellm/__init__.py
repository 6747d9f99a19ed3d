"""Stands in for TensorRT Edge-LLM 0.11.0; see `native`."""
