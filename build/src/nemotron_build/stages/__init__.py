"""A build as stages, `inspect → quantize → convert → compile → verify → package`, each kept while its inputs stay.

Every engine kind has a file that lists its stages; `workspace` keeps their outputs, `pipeline` runs them.
"""
