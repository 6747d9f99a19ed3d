"""The engine kinds, by name, and where the class of each is. Imports none of them."""

ENGINES = {
    "cpu": "nemotron_triton.engine.cpu:CpuEngine",
    "tensorrt": "nemotron_triton.engine.tensorrt:TensorrtEngine",
    "pytorch": "nemotron_triton.engine.pytorch:PytorchEngine",
    "edge": "nemotron_triton.engine.edge:EdgeEngine",
}
KINDS = tuple(ENGINES)
