"""The program of the model's makers for tool calls, with OpenAI's own client: only the address is ours.

    python clients/examples/openai_tip.py

The gateway is `OPENAI_BASE_URL`, by default http://127.0.0.1:8080/v1; the key, where one is needed, `OPENAI_API_KEY`.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from openai import OpenAI, OpenAIError

MODEL = "Llama-Nemotron-Nano-4B-v1.1"


def tool(name: str, description: str, **parameters: tuple[str, str]) -> dict[str, Any]:
    """A function whose *parameters* have a type and a description each, all required."""
    properties = {key: {"type": kind, "description": about} for key, (kind, about) in parameters.items()}
    schema = {"type": "object", "properties": properties, "required": [*properties]}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": schema}}


TOOLS = [
    tool(
        "calculate_tip",
        "Calculate the tip for a bill",
        bill_total=("integer", "The total amount of the bill"),
        tip_percentage=("integer", "The percentage of tip to be applied"),
    ),
    tool(
        "convert_currency",
        "Convert an amount from one currency to another",
        amount=("integer", "The amount to be converted"),
        from_currency=("string", "The currency code to convert from"),
        to_currency=("string", "The currency code to convert to"),
    ),
]


def main(client: OpenAI) -> None:
    """Ask for a tip with thinking, and print the thinking and the call."""
    completion = client.chat.completions.create(
        model=MODEL,
        messages=[
            {"role": "system", "content": "detailed thinking on"},
            {"role": "user", "content": "My bill is $100. What will be the amount for 18% tip?"},
        ],
        tools=TOOLS,
        temperature=0,
    )
    message = completion.choices[0].message
    # OpenAI's own models keep theirs to themselves: the class knows no such field, and takes it all the same.
    sys.stdout.write(f"thinking: {getattr(message, 'reasoning', None)}\n")
    for call in message.tool_calls or ():
        sys.stdout.write(f"call: {call.function.name} {call.function.arguments}\n")


if __name__ == "__main__":
    try:
        main(
            OpenAI(
                base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8080/v1"),
                api_key=os.environ.get("OPENAI_API_KEY", "none"),
            )
        )
    except OpenAIError as error:
        sys.exit(f"error: {error}")
