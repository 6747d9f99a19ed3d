"""NVIDIA ModelOpt in environments of their own: quantise, export, and measure what quantising costs."""
