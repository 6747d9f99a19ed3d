"""Let the model call a Python function, and answer with what it returned.

    python clients/examples/tools.py 'My bill is $100. What will be the amount for 18% tip?'

The server is `NEMOTRON_URL`, by default 127.0.0.1:8001.
"""

from __future__ import annotations

import sys

from nemotron_client import Client, ClientError, ContentDelta, ToolCall, ToolResult, UserMessage


def calculate_tip(bill_total: int, tip_percentage: int) -> dict[str, float]:
    """Calculate the tip for a bill.

    :param bill_total: The total amount of the bill
    :param tip_percentage: The percentage of tip to be applied
    """
    return {"tip": bill_total * tip_percentage / 100}


def main(question: str) -> None:
    """Calls and results to stderr, the answer to stdout."""
    with Client(timeout_s=60) as client:
        for event in client.run_stream([UserMessage(question)], tools=[calculate_tip], temperature=0.0):
            if isinstance(event, ToolCall):
                sys.stderr.write(f"{event.name}({event.arguments_json})")
            elif isinstance(event, ToolResult):
                sys.stderr.write(f" -> {event.content}\n")
            elif isinstance(event, ContentDelta):
                sys.stdout.write(event.text)
        sys.stdout.write("\n")


if __name__ == "__main__":
    try:
        main(" ".join(sys.argv[1:]) or "My bill is $100. What will be the amount for 18% tip?")
    except ClientError as error:
        sys.exit(f"error: {error}")
