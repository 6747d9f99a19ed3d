"""A build as stages, `inspect → quantize → convert → compile → verify → package`, each kept while its inputs stay.

`kinds` has a file for every engine kind that lists its stages; `workspace` keeps their outputs, `pipeline` runs them.
"""
