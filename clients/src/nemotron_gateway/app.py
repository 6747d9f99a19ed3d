"""The gateway as an ASGI application."""

from __future__ import annotations

from starlette.routing import Route, Router

from nemotron_client import AsyncClient
from nemotron_gateway.answering import Answering
from nemotron_gateway.chat_completions import ChatCompletions
from nemotron_gateway.completions import Completions
from nemotron_gateway.door import Door
from nemotron_gateway.keys import Keys
from nemotron_gateway.metrics import Metrics
from nemotron_gateway.prompts import Prompts
from nemotron_gateway.routes import Live, Models, Ready, Scrape
from nemotron_gateway.served_model import ServedModel
from nemotron_gateway.settings import Settings


def application(client: AsyncClient, settings: Settings, keys: Keys) -> Door:
    """The gateway in front of the servers of *client*."""
    metrics = Metrics()
    answering = Answering(client, settings, ServedModel(client, settings), metrics)
    routes = [
        Route("/v1/chat/completions", ChatCompletions(answering), methods=["POST"]),
        Route("/v1/chat/completions/render", Prompts(answering, shows_text=True), methods=["POST"]),
        Route("/v1/completions", Completions(answering), methods=["POST"]),
        Route("/v1/models", Models(answering), methods=["GET"]),
        Route("/v1/models/{name:path}", Models(answering), methods=["GET"]),
        Route("/tokenize", Prompts(answering, shows_text=False), methods=["POST"]),
        Route("/health/live", Live(), methods=["GET"]),
        Route("/health/ready", Ready(answering, lambda: door.draining), methods=["GET"]),
        Route("/metrics", Scrape(answering), methods=["GET"]),
    ]
    door = Door(Router(routes, redirect_slashes=False), [route.path for route in routes], settings, keys, metrics)
    return door
