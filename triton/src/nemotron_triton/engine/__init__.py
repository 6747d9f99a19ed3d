"""Engines behind one interface: token ids in, token ids out. In-flight batching is theirs."""
