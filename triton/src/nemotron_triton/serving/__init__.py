"""The work behind the adapters in `model_repo/`: requests in, answers out, on one event loop."""
