"""The `preprocessing` Triton model: an adapter over `nemotron_triton.serving.text_models`."""

from __future__ import annotations

import triton_python_backend_utils as pb_utils

from nemotron_triton.serving.text_models import TextModel


class TritonPythonModel:
    """What tritonserver's Python backend looks for."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the bundle's tokenizer."""
        self._model = TextModel.preprocessing(args, pb_utils)

    def execute(self, requests: list[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse]:
        """One response for every request."""
        return self._model.execute(requests)
