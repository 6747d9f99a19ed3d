"""What each response of the replayed answer says."""

# About what 14 tokens of an answer are.
TEXT = ' and then the next "few words" of it,\n as an answer has them'
TOKENS = 14
