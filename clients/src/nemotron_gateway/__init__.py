"""An OpenAI-compatible gateway: HTTP in, gRPC to the `nemotron` model out.

A process of its own without state, over `nemotron_client.AsyncClient`. It neither renders prompts nor parses answers:
what is exact is exact in the server. It needs the extra `openai`.
"""
