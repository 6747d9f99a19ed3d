"""Ask one question and print the answer as it comes, the thinking apart from it.

    python clients/examples/ask.py "What is the capital of France?"

The server is `NEMOTRON_URL`, by default 127.0.0.1:8001.
"""

from __future__ import annotations

import sys

from nemotron_client import Client, ClientError, ContentDelta, Finish, ReasoningDelta, UserMessage


def main(question: str) -> None:
    """Thinking to stderr, the answer to stdout."""
    with Client(timeout_s=60) as client:
        for event in client.stream([UserMessage(question)], thinking=True):
            if isinstance(event, ReasoningDelta):
                sys.stderr.write(event.text)
            elif isinstance(event, ContentDelta):
                sys.stdout.write(event.text)
                sys.stdout.flush()
            elif isinstance(event, Finish):
                usage, timings = event.usage, event.timings
                sys.stderr.write(f"\n{usage.output_tokens} tokens in {timings.total_s:.2f} s\n")


if __name__ == "__main__":
    try:
        main(" ".join(sys.argv[1:]) or "What is the capital of France?")
    except ClientError as error:
        sys.exit(f"error: {error}")
