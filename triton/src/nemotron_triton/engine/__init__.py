"""Engines that turn token ids into token ids, behind one interface; in-flight batching is theirs."""
