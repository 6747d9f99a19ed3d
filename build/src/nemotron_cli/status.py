"""Exit statuses beyond click's own 1 (failed) and 2 (wrong usage); `nemotron --help` explains them all."""

DOES_NOT_FIT = 3
REFUSED = 4
UNFINISHED = 5
