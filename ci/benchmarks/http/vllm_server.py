"""vLLM's API server, all its own, with its engine's process elsewhere: `vllm_server.py MODEL PORT FOLDER`.

Started as vLLM starts one of several API servers that share engines. *FOLDER* has the sockets that `vllm_engine.py`
connects to.
"""

from __future__ import annotations

import sys

import uvloop
from vllm.entrypoints.common.cli_args import make_arg_parser, validate_parsed_serve_args
from vllm.entrypoints.launchers.api_server.entry import run_server_worker
from vllm.entrypoints.launchers.launcher import setup_server
from vllm.utils.argparse_utils import FlexibleArgumentParser

# The demo checkpoint has none that vLLM finds. This one does in short what Llama's does.
_TEMPLATE = (
    "{% for message in messages %}<|start_header_id|>{{ message.role }}<|end_header_id|>\n\n"
    "{{ message.content }}<|eot_id|>{% endfor %}<|start_header_id|>assistant<|end_header_id|>\n\n"
)


def main() -> None:
    """Serve until killed."""
    model, port, folder = sys.argv[1:]
    arguments = ["--model", model, "--served-model-name", "replay", "--host", "127.0.0.1", "--port", port]
    parser = make_arg_parser(FlexibleArgumentParser())
    quiet = ["--disable-uvicorn-access-log", "--uvicorn-log-level", "warning"]
    args = parser.parse_args([*arguments, *quiet, "--chat-template", _TEMPLATE])
    validate_parsed_serve_args(args)
    address, listening = setup_server(args, reuse_port=False)
    engine = {
        "client_count": 1,
        "client_index": 0,
        "input_address": f"ipc://{folder}/requests",
        "output_address": f"ipc://{folder}/outputs",
    }
    uvloop.run(run_server_worker(address, listening, args, engine))


if __name__ == "__main__":
    main()
