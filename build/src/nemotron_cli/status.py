"""Exit statuses beyond 1 (failed); `nemotron --help` explains them all."""

WRONG_USAGE = 2
DOES_NOT_FIT = 3
REFUSED = 4
UNFINISHED = 5
