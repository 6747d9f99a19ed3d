"""The image and the compose file, held to the code. Nothing is built: what is checked is what they say.

A check yields what is wrong. Each is run on the files as they are, and on files with one thing broken.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from nemotron_build.commands import versions
from nemotron_cli import main
from nemotron_triton.serve_options import ServeOptions

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
DOCKER = "triton/docker"
DOCKERFILE = f"{DOCKER}/Dockerfile"
COMPOSE = f"{DOCKER}/docker-compose.yaml"
SCRAPES = f"{DOCKER}/prometheus.yaml"
DATASOURCES = f"{DOCKER}/grafana/datasources/prometheus.yaml"
DASHBOARDS = f"{DOCKER}/grafana/dashboards/nemotron.yaml"
IGNORED = ".dockerignore"
LOCK = "ci/constraints.txt"
FILES = {
    path: (ROOT / path).read_text() for path in (DOCKERFILE, COMPOSE, SCRAPES, DATASOURCES, DASHBOARDS, IGNORED, LOCK)
}

Files = dict[str, str]
Check = Callable[[Files], Iterator[str]]


def image_is_the_one_that_engines_are_compiled_in(files: Files) -> Iterator[str]:
    defaults = dict(words[0].partition("=")[::2] for name, words in instructions(files) if name == "ARG")
    image = f"{defaults['TRITON_IMAGE']}:{defaults['TRITON_TAG']}"
    if image != versions.TRITON_IMAGE:
        yield f"{image} is not {versions.TRITON_IMAGE}"
    if defaults["TRITON_DIGEST"]:
        yield "the digest of an image that was never pulled"
    if not any(words[0].endswith(":+@${TRITON_DIGEST}}") for name, words in instructions(files) if name == "FROM"):
        yield "the digest is not used"


def what_is_copied_exists_and_nothing_else_is_sent(files: Files) -> Iterator[str]:
    copied = {source for name, words in instructions(files) if name == "COPY" for source in words[:-1]}
    yield from (f"{source} does not exist" for source in copied if not (ROOT / source).exists())
    rules = [line for line in files[IGNORED].splitlines() if line and not line.startswith("#")]
    if rules[0] != "*":
        yield "not everything is ignored"
    sent = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    yield from (f"{path} is sent and not copied, or the other way round" for path in sorted(sent ^ copied))


def what_is_installed_is_what_the_lock_has(files: Files) -> Iterator[str]:
    scripts = re.findall(r"sed -n -E '(/\^\(([^)]+)\)==[^']+)' ci/constraints\.txt", files[DOCKERFILE])
    if len(scripts) != 2:
        yield "what builds the wheel and what goes beside it are not taken from the lock"
    blocks = re.findall(r"^\w(?:.*\\\n)*.*\n", files[LOCK], re.MULTILINE)
    pins = [(block.partition("==")[0], block) for block in blocks]  # a package may have one for each Python
    for script, names in scripts:
        yield from (f"{name} is not in the lock" for name in names.split("|") if name not in dict(pins))
        selected = subprocess.run(
            ["/bin/sed", "-n", "-E", script], input=files[LOCK], capture_output=True, text=True, check=True
        ).stdout
        if selected != "".join(pin for name, pin in pins if name in names.split("|")):
            yield f"sed takes something else from the lock than {names}"


def image_runs_as_a_user_who_is_not_root_and_reads_its_secret(files: Files) -> Iterator[str]:
    users = [words[0] for name, words in instructions(files) if name == "USER"]
    if not users or not re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[-1]):
        yield f"the last user is {users[-1:]}"
        return
    owner = re.search(r"chown (\S+) secret ", files[COMPOSE])
    if not owner or owner[1] != users[-1].partition(":")[0]:
        yield f"{users[-1]} cannot read the secret that is made for {owner and owner[1]}"


def commands_are_ones_that_nemotron_takes(files: Files) -> Iterator[str]:
    for where, argv in commands(files).items():
        program, name, *arguments = argv[argv.index("nemotron") :]
        command = main.get_command(click.Context(main), name)
        if command is None:
            yield f"{where}: there is no command {name}"
            continue
        try:
            context = command.make_context(program, arguments)
        except click.UsageError as error:
            yield f"{where}: {error}"
            continue
        for option in ("host", "metrics_host"):
            if context.params[option] != "0.0.0.0":  # noqa: S104 - inside a container
                yield f"{where}: nobody outside of the container reaches {option} {context.params[option]}"
        if context.params["http_host"] is not None:
            yield f"{where}: HTTP leaves the container"
        if str(context.params["bundle"]) != "/bundle":
            yield f"{where}: the bundle is not where it is mounted"


def ports_are_those_of_nemotron_serve(files: Files) -> Iterator[str]:
    ports = {str(port) for option, port in ServeOptions().ports.items() if option != "--http-port"}
    exposed = next(words for name, words in instructions(files) if name == "EXPOSE")
    if set(exposed) != ports:
        yield f"{exposed} are exposed"
    health = next(words for name, words in instructions(files) if name == "HEALTHCHECK")
    if f'"http://127.0.0.1:{ServeOptions.http_port}/v2/health/ready"]' not in health:
        yield "health is asked for elsewhere"
    if f"--start-period={ServeOptions.ready_timeout_s:.0f}s" not in health:
        yield "health counts before `nemotron serve` gives up loading"
    published = {port.rpartition(":")[2] for port in services(files)["nemotron"]["ports"]}
    yield from (f"{port} is published and not exposed" for port in published - ports)
    (job,) = yaml.safe_load(files[SCRAPES])["scrape_configs"]
    if job["static_configs"] != [{"targets": [f"nemotron:{ServeOptions.metrics_port}"]}]:
        yield f"{job['static_configs']} is scraped"


def services_are_confined(files: Files) -> Iterator[str]:
    for name, service in services(files).items():
        if not (service.get("read_only") and service.get("cap_drop") == ["ALL"]):
            yield f"{name} has a root that it can write, or capabilities"
        if service.get("security_opt") != ["no-new-privileges:true"]:
            yield f"{name} may gain privileges"
        yield from (f"{name} publishes {port}" for port in service["ports"] if not port.startswith("127.0.0.1:"))
        if not re.fullmatch(r"nemotron|[\w./-]+:v?\d+\.\d+\.\d+", service["image"]):
            yield f"{name} has no pinned image"


def nemotron_gets_what_it_needs(files: Files) -> Iterator[str]:
    service = services(files)["nemotron"]
    (bundle,) = service["volumes"]
    if (bundle["target"], bundle["read_only"], bundle["type"]) != ("/bundle", True, "bind"):
        yield "the bundle is not mounted read-only"
    shm_gb = re.fullmatch(r"(\d+)gb", service["shm_size"])
    if not shm_gb or int(shm_gb[1]) < 1:
        yield "too little shared memory"
    options = ServeOptions()
    # The time that `RunningServer.stop` waits, and a margin.
    takes_s = options.drain_ms / 1000 + options.exit_timeout_s + 5 + 10
    if float(service["stop_grace_period"].removesuffix("s")) < takes_s:
        yield f"docker kills it in less than the {takes_s:g} s it may take to stop"
    (device,) = service["deploy"]["resources"]["reservations"]["devices"]
    if (device["driver"], device["capabilities"]) != ("nvidia", ["gpu"]):
        yield "no GPU"


def secrets_are_files_that_are_declared(files: Files) -> Iterator[str]:
    declared = yaml.safe_load(files[COMPOSE])["secrets"]
    for name, secret in declared.items():
        if not re.fullmatch(r"\$\{[A-Z_]+:\?.+\}", secret["file"]):
            yield f"the secret {name} has a default"
    for name, service in services(files).items():
        used = set(re.findall(r"/run/secrets/(\w+)", str(service)))
        if used != set(service.get("secrets", [])) or not used <= set(declared):
            yield f"{name} reads the secrets {sorted(used)}, and is given others"
        if re.search(r"PASSWORD(?!__FILE)'", str(service)):
            yield f"{name} is given a password that is no secret"


def what_is_mounted_exists_and_grafana_finds_it(files: Files) -> Iterator[str]:
    mounts = dict(
        volume.split(":")[:2]
        for service in services(files).values()
        for volume in service["volumes"]
        if isinstance(volume, str) and volume.startswith(".")
    )
    yield from (f"{source} does not exist" for source in mounts if not (ROOT / DOCKER / source).is_file())
    rules = yaml.safe_load(files[SCRAPES])["rule_files"]
    if rules != [mounts.get(f"../observability/{kind}.yaml") for kind in ("recording", "alerts")]:
        yield f"prometheus loads the rules {rules}, which are mounted elsewhere"
    (provider,) = yaml.safe_load(files[DASHBOARDS])["providers"]
    dashboard = mounts["../observability/grafana-dashboard.json"]
    if str(Path(dashboard).parent) != provider["options"]["path"]:
        yield f"the dashboard is mounted at {dashboard}, and looked for in {provider['options']['path']}"
    if services(files)["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] != dashboard:
        yield "the first page is another dashboard"
    (source,) = yaml.safe_load(files[DATASOURCES])["datasources"]
    (published,) = services(files)["prometheus"]["ports"]
    if source["url"] != f"http://prometheus:{published.rpartition(':')[2]}":
        yield f"{source['url']} is not prometheus"
    if source["jsonData"]["timeInterval"] != yaml.safe_load(files[SCRAPES])["global"]["scrape_interval"]:
        yield "grafana expects another interval"


# Every check, with changes that it must report: a file, a text in it, the replacement, and the complaint.
BROKEN: dict[Check, list[tuple[str, str, str, str]]] = {
    image_is_the_one_that_engines_are_compiled_in: [
        (DOCKERFILE, "TRITON_TAG=26.07", "TRITON_TAG=26.08", "26.08-trtllm-python-py3 is not"),
        (DOCKERFILE, "TRITON_DIGEST=\n", f"TRITON_DIGEST=sha256:{'0' * 64}\n", "never pulled"),
        (DOCKERFILE, "${TRITON_DIGEST:+@${TRITON_DIGEST}} AS", " AS", "not used"),
    ],
    what_is_copied_exists_and_nothing_else_is_sent: [
        (DOCKERFILE, "COPY model_repo model_repo", "COPY models models", "models does not exist"),
        (IGNORED, "*\n", "", "not everything is ignored"),
        (IGNORED, "!model_repo\n", "!model_repo\n!secret\n", "secret is sent"),
    ],
    what_is_installed_is_what_the_lock_has: [
        (DOCKERFILE, "python-rapidjson|", "rapidjson|", "rapidjson is not in the lock"),
        (LOCK, "tritonclient==", "triton-client==", "tritonclient is not in the lock"),
        (DOCKERFILE, r"[^\\]$/p' ci/constraints.txt > build", "hash/p' ci/constraints.txt > build", "something else"),
    ],
    image_runs_as_a_user_who_is_not_root_and_reads_its_secret: [
        (DOCKERFILE, "USER 1000:1000", "USER root", "root"),
        (DOCKERFILE, "USER 1000:1000\n", "", "the last user is"),
        (DOCKERFILE, "USER 1000:1000", "USER 1001:1001", "made for 1000"),
        (COMPOSE, "chown 1000 secret", "chown 0 secret", "made for 0"),
    ],
    commands_are_ones_that_nemotron_takes: [
        (COMPOSE, "--secret-file", "--secret", "docker-compose.yaml: No such option"),
        (DOCKERFILE, '"nemotron", "serve"]', '"nemotron", "server"]', "Dockerfile: there is no command"),
        (DOCKERFILE, '"--host", "0.0.0.0", ', "", "reaches host 127.0.0.1"),
        (
            DOCKERFILE,
            ', "--metrics-host", "0.0.0.0"]',
            "]",
            "Dockerfile: nobody outside of the container reaches metrics",
        ),
        (COMPOSE, "--metrics-host, 0.0.0.0, ", "", "compose.yaml: nobody outside of the container reaches metrics"),
        (COMPOSE, "--metrics-host,", "--http-host,", "docker-compose.yaml: HTTP leaves the container"),
        (COMPOSE, "command: [/bundle,", "command: [/model,", "where it is mounted"),
    ],
    ports_are_those_of_nemotron_serve: [
        (DOCKERFILE, "EXPOSE 8001", "EXPOSE 8000 8001", "exposed"),
        (DOCKERFILE, ":8000/v2/health", ":8080/v2/health", "asked for elsewhere"),
        (DOCKERFILE, "--start-period=600s", "--start-period=60s", "gives up loading"),
        (COMPOSE, ":8001:8001", ":8001:9001", "9001 is published"),
        (COMPOSE, ":8001:8001", ":8000:8000", "8000 is published"),
        (SCRAPES, "nemotron:8002", "nemotron:8003", "is scraped"),
    ],
    services_are_confined: [
        (COMPOSE, "cap_drop: [ALL]", "cap_drop: [NET_RAW]", "nemotron has a root"),
        (COMPOSE, "no-new-privileges:true", "seccomp:unconfined", "grafana may gain"),
        (COMPOSE, "127.0.0.1:3000:3000", "3000:3000", "grafana publishes 3000:3000"),
        (COMPOSE, "prometheus:v3.13.3", "prometheus:latest", "prometheus has no pinned image"),
    ],
    nemotron_gets_what_it_needs: [
        (COMPOSE, "        read_only: true\n", "        read_only: false\n", "not mounted read-only"),
        (COMPOSE, "shm_size: 2gb", "shm_size: 64mb", "too little shared memory"),
        (COMPOSE, "stop_grace_period: 90s", "stop_grace_period: 10s", "docker kills it"),
        (COMPOSE, "capabilities: [gpu]", "capabilities: [tpu]", "no GPU"),
    ],
    secrets_are_files_that_are_declared: [
        (COMPOSE, ":?a file with the password", ":-a file with the password", "grafana_password has a default"),
        (COMPOSE, "secrets: [nemotron_secret]", "secrets: [grafana_password]", "given others"),
        (COMPOSE, "PASSWORD__FILE: /run", "PASSWORD: /run", "no secret"),
    ],
    what_is_mounted_exists_and_grafana_finds_it: [
        (COMPOSE, "./prometheus.yaml", "./prometheus.yml", "prometheus.yml does not exist"),
        (COMPOSE, "observability/alerts.yaml", "observability/alerts.yml", "alerts.yml does not exist"),
        (SCRAPES, ", /etc/prometheus/alerts.yaml]", ", /etc/alerts.yaml]", "mounted elsewhere"),
        (DASHBOARDS, "path: /etc/nemotron", "path: /etc/grafana", "looked for in /etc/grafana"),
        (COMPOSE, "DASHBOARD_PATH: /etc/nemotron", "DASHBOARD_PATH: /etc", "another dashboard"),
        (DATASOURCES, ":9090", ":9091", "is not prometheus"),
        (DATASOURCES, "timeInterval: 5s", "timeInterval: 15s", "another interval"),
    ],
}


@pytest.mark.parametrize("check", BROKEN, ids=lambda check: check.__name__)
def test_files_agree_with_the_code(check: Check) -> None:
    assert list(check(FILES)) == []


@pytest.mark.parametrize(
    ("check", "path", "old", "new", "problem"), [(check, *row) for check, rows in BROKEN.items() for row in rows]
)
def test_checks_see_what_is_broken(check: Check, path: str, old: str, new: str, problem: str) -> None:
    assert old in FILES[path]

    problems = list(check(FILES | {path: FILES[path].replace(old, new)}))

    assert problem in "\n".join(problems)


def test_the_dockerfile_passes_its_linter_with_no_rule_left_out() -> None:
    broken = FILES[DOCKERFILE].replace("--no-cache-dir ", "").replace("USER 1000:1000", "USER root")

    assert lint(FILES[DOCKERFILE]) == ""
    assert {"DL3042", "DL3002"} <= set(re.findall(r"DL\d+", lint(broken)))
    assert "hadolint ignore" not in FILES[DOCKERFILE]


def test_the_compose_file_follows_the_specification(tmp_path: Path) -> None:
    broken = tmp_path / "docker-compose.yaml"
    broken.write_text(FILES[COMPOSE].replace("shm_size:", "shmsize:"))

    assert follows_the_specification(ROOT / COMPOSE)
    assert not follows_the_specification(broken)


@pytest.mark.parametrize("path", [DOCKERFILE, COMPOSE])
def test_files_say_that_nobody_ran_them(path: str) -> None:
    comment = re.match(r"(#.*\n)+", FILES[path])

    assert comment
    assert "Not built" in comment[0]


def instructions(files: Files) -> Iterator[tuple[str, list[str]]]:
    """The Dockerfile's instructions with their words."""
    lines = [line for line in files[DOCKERFILE].splitlines() if not line.startswith("#")]
    for line in re.sub(r"\\\n", " ", "\n".join(lines)).splitlines():
        if words := line.split():
            yield words[0], words[1:]


def services(files: Files) -> dict[str, Any]:
    """The compose file's services."""
    return dict(yaml.safe_load(files[COMPOSE])["services"])


def commands(files: Files) -> dict[str, list[str]]:
    """The commands with which each file starts the image."""
    lists = {name: json.loads(" ".join(words)) for name, words in instructions(files) if name in {"ENTRYPOINT", "CMD"}}
    return {
        DOCKERFILE: [*lists["ENTRYPOINT"], *lists["CMD"]],
        COMPOSE: [*lists["ENTRYPOINT"], *services(files)["nemotron"]["command"]],
    }


def lint(dockerfile: str) -> str:
    """The complaints of hadolint."""
    return subprocess.run(
        [BIN / "hadolint", "--no-color", "-"], input=dockerfile, capture_output=True, text=True, check=False
    ).stdout


def follows_the_specification(path: Path) -> bool:
    """Whether a compose file follows the JSON schema of the specification."""
    argv = [str(BIN / "check-jsonschema"), "--builtin-schema", "vendor.compose-spec", str(path)]
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0
