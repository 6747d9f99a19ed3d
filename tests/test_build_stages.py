"""A build resumes where it was interrupted, repeats only what a change requires, and never mixes two builds."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from checkpoints import write_checkpoint, write_sparse_checkpoint
from commands import invoke
from nemotron_build.engine import EngineSpec, build, dry_run
from nemotron_build.errors import OutputError
from nemotron_build.host import Host
from nemotron_build.kinds import find_kind
from nemotron_triton.bundle import SCHEMA, Bundle, digest, manifest_schema
from nemotron_triton.chat.profiles import profile
from reporters import Heard

CPU = find_kind("cpu")


@pytest.fixture
def source(tmp_path: Path, checkpoint: Path) -> Path:
    """A copy of the demo checkpoint that a test may change."""
    return Path(shutil.copytree(checkpoint, tmp_path / "source"))


def run(source: Path, output: Path, **settings: Any) -> Heard:
    heard = Heard()
    build(EngineSpec(checkpoint=source, gpu="cpu", **settings), output, reporter=heard)
    return heard


def contents(bundle: Path) -> dict[str, str]:
    """The digest of every file, and the manifest without its times."""
    files = {path.relative_to(bundle).as_posix(): path for path in bundle.rglob("*") if path.is_file()}
    manifest = json.loads(files.pop("manifest.json").read_text())
    del manifest["built_at"]
    return {name: digest(path) for name, path in files.items()} | {"manifest": json.dumps(manifest)}


def test_a_second_run_finds_everything_done(tmp_path: Path, source: Path) -> None:
    run(source, tmp_path / "bundle")
    before = (tmp_path / "bundle" / "manifest.json").stat()

    heard = run(source, tmp_path / "bundle")

    assert heard.stages == ["inspect"]
    assert heard.notes == [f"{tmp_path / 'bundle'} is up to date"]
    assert (tmp_path / "bundle" / "manifest.json").stat() == before


def test_a_damaged_bundle_is_made_again_from_what_is_kept(tmp_path: Path, source: Path) -> None:
    run(source, tmp_path / "bundle")
    good = contents(tmp_path / "bundle")
    (tmp_path / "bundle" / "tokenizer" / "tokenizer.json").unlink()

    heard = run(source, tmp_path / "bundle")

    assert heard.stages == ["inspect", "package"]
    assert contents(tmp_path / "bundle") == good


def test_a_kept_output_that_was_changed_is_made_again(tmp_path: Path, source: Path) -> None:
    run(source, tmp_path / "bundle")
    good = contents(tmp_path / "bundle")
    shutil.rmtree(tmp_path / "bundle")
    engine = tmp_path / "bundle.build" / "convert" / CPU.engine_file
    data = bytearray(engine.read_bytes())
    data[len(data) // 2] ^= 1
    engine.write_bytes(data)

    heard = run(source, tmp_path / "bundle")

    assert heard.stages == ["inspect", "convert", "package"]
    assert contents(tmp_path / "bundle") == good


@pytest.mark.parametrize(
    ("change", "stages"),
    [
        ("a byte of the weights", ["inspect", "convert", "verify", "package"]),
        ("another precision", ["inspect", "convert", "verify", "package"]),
        # The engine has the length from the manifest, so nothing of it changes.
        ("another length", ["inspect", "package"]),
        ("another tool", ["inspect", "convert", "verify", "package"]),
    ],
)
def test_a_change_repeats_only_what_depends_on_it(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, change: str, stages: list[str]
) -> None:
    run(source, tmp_path / "bundle", precision="bf16")
    settings: dict[str, Any] = {"precision": "bf16"}
    if change == "a byte of the weights":
        weights = source / "model.safetensors"
        data = bytearray(weights.read_bytes())
        data[-1000] ^= 1
        times = weights.stat()
        weights.write_bytes(data)
        # Setting the time back changes nothing: it is not the only thing that is compared.
        os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))
    elif change == "another precision":
        settings = {"precision": "fp16"}
    elif change == "another length":
        settings["max_seq_len"] = 512
    else:
        versions = {**CPU.tool_versions(Host()), "gguf": "99"}
        monkeypatch.setattr(CPU, "tool_versions", lambda _: versions)

    heard = run(source, tmp_path / "bundle", **settings)

    assert heard.stages == stages
    Bundle.open(tmp_path / "bundle").verify()


# Where each stage is in its work: a function it calls in the middle, and how often it is called before the kill.
_MOMENTS = {
    "inspect": ("nemotron_build.stages.inspect.digest", 1),
    "convert": ("nemotron_build.gguf_file.quantize", 5),
    "verify": ("nemotron_build.verification.gguf.check_gguf", 0),
    "package": ("nemotron_build.stages.package.copy_file", 1),
    "between the renames of package": ("nemotron_triton.atomic.rename_into_place", 0),
}
_KILLED = """
import importlib, os, signal, sys
module, _, name = {target!r}.rpartition(".")
module = importlib.import_module(module)
real, left = getattr(module, name), [{count}]
def fatal(*arguments, **settings):
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    left[0] -= 1
    return real(*arguments, **settings)
setattr(module, name, fatal)
from nemotron_cli import main
main()
"""


@pytest.mark.parametrize("moment", _MOMENTS)
def test_after_a_kill_the_next_run_goes_on_to_the_same_bundle(tmp_path: Path, source: Path, moment: str) -> None:
    run(source, tmp_path / "undisturbed" / "bundle", precision="bf16")
    output = tmp_path / "bundle"
    if moment.startswith("between"):
        run(source, output, precision="fp16")
    target, count = _MOMENTS[moment]
    arguments = ["build-engine", str(source), "--gpu", "cpu", "--precision", "bf16", "--output", str(output)]

    script = _KILLED.format(target=target, count=count)
    killed = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, check=False, timeout=60)
    heard = run(source, output, precision="bf16")

    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert contents(output) == contents(tmp_path / "undisturbed" / "bundle")
    if moment in ("verify", "package"):
        assert "convert" not in heard.stages
    assert sorted(os.listdir(tmp_path)) == ["bundle", "bundle.build", "source", "undisturbed"]


def test_a_changed_template_file_makes_another_bundle(tmp_path: Path, source: Path) -> None:
    template = tmp_path / "mine.jinja"
    template.write_text("{{ messages[0].content }}")
    run(source, tmp_path / "bundle", chat_template=template)
    template.write_text("{{ messages[0].content }}!")

    heard = run(source, tmp_path / "bundle", chat_template=template)

    assert heard.stages == ["inspect", "package"]
    assert Bundle.open(tmp_path / "bundle").chat_template == "{{ messages[0].content }}!"


def test_a_checkpoint_of_links_becomes_a_bundle_of_files(tmp_path: Path, source: Path) -> None:
    # As a hub's cache has it: names that link to blobs, relative to where they are.
    (tmp_path / "snapshots" / "abc").mkdir(parents=True)
    for path in source.iterdir():
        (tmp_path / "snapshots" / "abc" / path.name).symlink_to(f"../../source/{path.name}")

    run(tmp_path / "snapshots" / "abc", tmp_path / "bundle")
    run(source, tmp_path / "plain")

    assert not any(path.is_symlink() for path in (tmp_path / "bundle").rglob("*"))
    assert Bundle.open(tmp_path / "bundle").manifest.outputs == Bundle.open(tmp_path / "plain").manifest.outputs


def test_what_happens_to_the_checkpoint_later_changes_no_bundle(tmp_path: Path, source: Path) -> None:
    run(source, tmp_path / "bundle")

    for path in source.iterdir():
        with path.open("ab") as file:
            file.write(b" ")

    Bundle.open(tmp_path / "bundle").verify()


def test_a_stage_s_output_that_was_overwritten_in_place_is_found_out(tmp_path: Path, source: Path) -> None:
    run(source, tmp_path / "bundle")
    good = contents(tmp_path / "bundle")
    shutil.rmtree(tmp_path / "bundle")
    engine = tmp_path / "bundle.build" / "convert" / CPU.engine_file
    times = engine.stat()
    with engine.open("r+b") as file:
        file.seek(1_000_000)
        file.write(b"\0" * 2000)
    os.utime(engine, ns=(times.st_atime_ns, times.st_mtime_ns))

    heard = run(source, tmp_path / "bundle")

    assert "convert" in heard.stages
    assert contents(tmp_path / "bundle") == good


@pytest.mark.parametrize(
    "manifest",
    ['{"name": "my app"}', "[]", "{", '{"schema_version": 2, "profile": "p", "kind": "cpu", "outputs": {}}'],
)
def test_a_folder_that_is_no_bundle_of_ours_is_left_alone(tmp_path: Path, source: Path, manifest: str) -> None:
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "manifest.json").write_text(manifest)
    (tmp_path / "web" / "index.html").write_text("precious")

    with pytest.raises(OutputError, match="web exists; remove it or give another --output"):
        run(source, tmp_path / "web")

    assert (tmp_path / "web" / "index.html").read_text() == "precious"


def test_a_folder_that_is_no_workspace_of_ours_is_left_alone(tmp_path: Path, source: Path) -> None:
    (tmp_path / "bundle.build" / "convert").mkdir(parents=True)
    (tmp_path / "bundle.build" / "convert" / "mine").write_text("precious")

    with pytest.raises(OutputError, match=r"bundle.build is needed for the build and holds other files"):
        run(source, tmp_path / "bundle")

    assert (tmp_path / "bundle.build" / "convert" / "mine").read_text() == "precious"


@pytest.mark.parametrize("place", [".", "/", "..", "a/.."])
def test_some_places_are_no_places_for_a_bundle(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.chdir(source)

    with pytest.raises(OutputError, match="give another --output"):
        run(source, Path(place))

    assert sorted(os.listdir(tmp_path)) == ["source"]


def test_two_builds_of_one_bundle_take_turns(tmp_path: Path, source: Path) -> None:
    heard: dict[int, Heard] = {}

    def build_one(number: int) -> None:
        heard[number] = run(source, tmp_path / "bundle", precision="bf16")

    threads = [threading.Thread(target=build_one, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    stages = sorted((reporter.stages for reporter in heard.values()), key=len)
    assert stages == [["inspect"], ["inspect"], ["inspect", "convert", "verify", "package"]]
    assert any("waiting for another build" in note for reporter in heard.values() for note in reporter.notes)
    Bundle.open(tmp_path / "bundle").verify()


def test_the_manifest_follows_its_published_schema(tmp_path: Path, source: Path) -> None:
    run(source, tmp_path / "bundle")

    schema = json.loads(SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(json.loads((tmp_path / "bundle" / "manifest.json").read_text()), schema)


def test_the_published_schema_is_current() -> None:
    assert SCHEMA.read_text() == manifest_schema(), "run ci/schema"


def test_the_manifest_keeps_every_setting_as_resolved(tmp_path: Path, source: Path) -> None:
    run(source, tmp_path / "bundle")

    manifest = Bundle.open(tmp_path / "bundle").manifest
    assert manifest.config["precision"] == manifest.precision == "int8-wo"
    assert manifest.config["max_seq_len"] == manifest.max_seq_len == 2048
    assert manifest.config["engine_kind"] == "cpu"
    assert manifest.checks
    assert manifest.ran_on_this_hardware


# Not ru_maxrss: a child inherits that from the process that started it.
_MEASURED = """
import re, sys
from pathlib import Path
from nemotron_cli import main
try:
    main()
finally:
    print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1], file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("name", "gpu"), [("llama-nemotron-nano-4b-v1.1", "h100"), ("nemotron-3-nano-4b", "jetson-thor")]
)
def test_a_dry_run_of_a_real_size_model_reads_no_weights(tmp_path: Path, checkpoint: Path, name: str, gpu: str) -> None:
    write_sparse_checkpoint(tmp_path / "c", checkpoint, dict(profile(name).architecture))
    arguments = ["build-engine", str(tmp_path / "c"), "--gpu", gpu, "--model", name, "--precision", "fp8"]
    argv = [sys.executable, "-c", _MEASURED, *arguments, "--output", str(tmp_path / "bundle"), "--dry-run", "--json"]

    result = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)

    plan = json.loads(result.stdout)
    assert [stage["name"] for stage in plan["stages"]][:1] == ["inspect"]
    assert {"quantize", "compile", "verify", "package"} <= {stage["name"] for stage in plan["stages"]}
    assert all(stage["commands"] for stage in plan["stages"] if stage["name"] in ("quantize", "compile"))
    assert plan["config"]["precision"] == "fp8"
    assert int(result.stderr.splitlines()[-1]) < 300 * 1024  # KiB
    assert os.listdir(tmp_path) == ["c"]


def test_a_dry_run_writes_nothing_and_says_what_is_blocked(tmp_path: Path, checkpoint: Path) -> None:
    write_checkpoint(tmp_path / "c", checkpoint, hidden_size=256, head_dim=128, num_attention_heads=4)
    spec = EngineSpec(checkpoint=tmp_path / "c", gpu="l40s", precision="int8-sq")

    plan = dry_run(spec, tmp_path / "bundle", host=Host())

    blocked = {stage["name"]: stage["blocked"] for stage in plan["stages"] if stage["blocked"]}
    assert list(blocked) == ["compile"]
    assert "compiled on a GPU of SM 89, and this machine has no NVIDIA GPU" in blocked["compile"]
    assert os.listdir(tmp_path) == ["c"]


def test_a_plan_that_does_not_fit_is_not_built(tmp_path: Path, checkpoint: Path) -> None:
    write_sparse_checkpoint(tmp_path / "c", checkpoint, dict(profile("llama-nemotron-nano-4b-v1.1").architecture))
    command = ["build-engine", tmp_path / "c", "--gpu", "a10g", "--precision", "bf16", "--max-seq-len", 32768]
    command += ["--max-batch-size", 32, "--output", tmp_path / "bundle"]

    result = invoke(*command)

    assert (result.exit_code, result.stdout) == (3, "")
    assert "this does not fit NVIDIA A10G" in result.stderr
    assert "--max-batch-size 2 or" in result.stderr
    assert os.listdir(tmp_path) == ["c"]

    dry = invoke(*command, "--dry-run")
    assert dry.exit_code == 3
    assert "does not fit" in dry.stdout


def test_a_refused_combination_names_the_nearest(tmp_path: Path, checkpoint: Path) -> None:
    result = invoke("build-engine", checkpoint, "--gpu", "a10g", "--precision", "fp8", "--output", tmp_path / "bundle")

    assert (result.exit_code, result.stdout) == (4, "")
    assert "FP8" in result.stderr
    assert "use --precision" in result.stderr
    assert os.listdir(tmp_path) == []


def test_a_build_on_a_disk_that_fills_up_goes_on_when_there_is_room(tmp_path: Path, source: Path) -> None:
    run(source, tmp_path / "undisturbed" / "bundle", precision="bf16")
    argv = [sys.executable, "-m", "nemotron_cli", "build-engine", str(source), "--gpu", "cpu", "--precision", "bf16"]

    full = subprocess.run(
        [*argv, "--output", str(tmp_path / "bundle")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000)),
    )
    run(source, tmp_path / "bundle", precision="bf16")

    assert full.returncode == 1
    assert "convert cannot write in" in full.stderr
    assert contents(tmp_path / "bundle") == contents(tmp_path / "undisturbed" / "bundle")
