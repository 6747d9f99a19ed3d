"""Exact commands and settings of the tools a build runs: pure functions from typed arguments to argv or a dict.

Nothing here runs anything, reads a file or plans memory; every limit is the caller's. What no version of a tool can do
is refused; what is merely unproven is not known here.
"""
