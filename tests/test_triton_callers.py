"""Who may call: files of secrets, what is wrong with one, and which caller a request's headers tell of."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nemotron_triton.access import read_secret
from nemotron_triton.callers import Caller, Callers, read_callers
from nemotron_triton.errors import AccessError, RequestError, ServerError
from nemotron_triton.run_folder import RunFolder
from nemotron_triton.serving.authentication import Authentication
from nemotron_triton.serving.caller_labels import CallerLabels

ALICE, BOB, GATEWAY = "alice-horse-battery", "bob-horse-battery-staple", "gateway-horse-battery"
FILE = f"""
# who may call
alice: {ALICE}
  bob-2.x_y:\t{BOB}

gateway front: {GATEWAY}
"""


def secrets(folder: Path, text: str, mode: int = 0o600) -> Path:
    file = folder / "secrets"
    file.write_text(text)
    file.chmod(mode)
    return file


def test_each_line_names_a_caller() -> None:
    callers = Callers.parse(FILE, "a test")

    assert str(callers) == "alice, bob-2.x_y, front"
    assert callers.of(ALICE) == Caller("alice")
    assert callers.of(BOB) == Caller("bob-2.x_y")
    assert callers.of(GATEWAY) == Caller("front", is_gateway=True)
    assert callers.of(ALICE + "x") is callers.of("") is callers.of("é") is None


@pytest.mark.parametrize("secret", [ALICE, "with:colon-and=base64+/"])
def test_one_secret_alone_is_of_the_caller_default(secret: str) -> None:
    assert Callers.parse(f"{secret}\n", "a test").of(secret) == Caller("default")


def test_what_a_server_hands_to_its_models_holds_no_secret_and_means_the_same() -> None:
    callers = Callers.parse(FILE, "a test")

    assert ALICE not in callers.text() + repr(callers)
    assert Callers.parse(callers.text(), "a copy") == callers
    alone = Callers.parse(ALICE, "a test")
    assert Callers.parse(alone.text(), "a copy") == alone


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "a test holds no secret; `openssl rand -hex 32` makes one"),
        ("# nothing", "a test holds no secret"),
        ("short", "the secret in a test is not 16 to 1024 visible ASCII characters; `openssl rand -hex 32` makes one"),
        ("a" * 1025, "is not 16 to 1024 visible ASCII characters"),
        (f"alice: {ALICE}\nbob: short", "the secret in line 2 of a test is not 16 to 1024 visible ASCII characters"),
        (f"alice: {ALICE}\n{BOB}", "line 2 of a test is no `name: secret`; a name has up to 64 letters"),
        (f"alice:{ALICE}\nbob: {BOB}", "line 1 of a test is no `name: secret`; .*behind the colon is a space"),
        (f"al ice: {ALICE}", "line 1 of a test is no `name: secret`"),
        (f"{'a' * 65}: {ALICE}", "line 1 of a test is no `name: secret`"),
        (f"alice: {ALICE} more", "line 1 of a test is no `name: secret`"),
        (f"alice: {ALICE}\n\nalice: {BOB}", "line 3 of a test names alice again; give each caller one line"),
        (f"alice: {ALICE}\nbob: {ALICE}", "line 2 of a test has the secret of alice again"),
        ("\n".join(f"c{n}: secret-of-caller-{n}" for n in range(257)), "a test names 257 callers; at most 256"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line_without_its_secrets(text: str, complaint: str) -> None:
    with pytest.raises(ServerError, match=complaint) as raised:
        Callers.parse(text, "a test")

    assert not any(secret in str(raised.value) for secret in (ALICE, BOB))


def test_the_file_of_the_command_comes_before_that_of_the_environment_and_before_its_secret(tmp_path: Path) -> None:
    file = secrets(tmp_path, ALICE, 0o640)
    other = tmp_path / "other"
    other.write_text(f"bob: {BOB}")
    other.chmod(0o600)
    environment = {"NEMOTRON_SECRET": GATEWAY}

    assert str(read_callers(file, environment | {"NEMOTRON_SECRET_FILE": str(other)})) == "default"
    assert str(read_callers(None, environment | {"NEMOTRON_SECRET_FILE": str(other)})) == "bob"
    assert (read_callers(None, environment) or Callers({})).of(GATEWAY) == Caller("default")
    assert read_callers(None, {}) is None


@pytest.mark.parametrize("variable", ["NEMOTRON_SECRET", "NEMOTRON_SECRET_FILE"])
def test_a_variable_that_is_set_but_empty_opens_no_server(variable: str) -> None:
    with pytest.raises(ServerError, match=f"{variable} is set but empty; give it the .*, or unset it"):
        read_callers(None, {variable: ""})


@pytest.mark.parametrize(
    "secret", ["short", "a" * 1025, "with spaces in it, long", "with\nline-breaks-in-it", "é" * 20]
)
def test_a_secret_that_no_header_carries_or_that_is_guessed_is_refused(secret: str) -> None:
    with pytest.raises(ServerError, match=r"16 to 1024 visible ASCII characters; `openssl rand -hex 32` makes one"):
        read_callers(None, {"NEMOTRON_SECRET": secret})


def test_a_file_that_everybody_can_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match=r"can be read by every user of this machine; chmod 600 \S+secrets"):
        read_callers(secrets(tmp_path, ALICE, 0o644))


def test_a_client_takes_a_file_with_its_own_secret_alone(tmp_path: Path) -> None:
    assert read_secret(secrets(tmp_path, f"{ALICE}\n")) == ALICE
    with pytest.raises(
        ServerError, match="secrets holds more than a secret; a client takes a file with its own secret"
    ):
        read_secret(secrets(tmp_path, f"alice: {ALICE}"))


def test_the_copy_for_the_models_is_private_and_replaced_at_once(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)

    file = folder.write_callers(Callers.parse(FILE, "a test"))
    folder.write_callers(Callers.parse(ALICE, "a test"))

    assert file.stat().st_mode & 0o777 == 0o600
    assert str(Callers.read(file)) == "default"
    assert os.listdir(tmp_path) == [file.name]


@pytest.mark.parametrize(
    ("headers", "caller"),
    [
        ({"nemotron-secret": ALICE}, "alice"),
        ({"triton-grpc-protocol-nemotron-secret": ALICE}, "alice"),
        ({"nemotron-secret": ALICE, "nemotron-caller": "bob"}, "alice"),
        ({"nemotron-secret": GATEWAY}, "front"),
        ({"nemotron-secret": GATEWAY, "nemotron-caller": "a@example.org"}, "front/a@example.org"),
    ],
)
def test_the_caller_is_who_has_the_secret_and_a_gateway_says_for_whom(
    tmp_path: Path, headers: dict[str, str], caller: str
) -> None:
    assert Authentication(secrets(tmp_path, FILE)).caller(headers) == caller


def test_who_is_not_known_is_denied_and_a_name_that_cannot_be_logged_refused(tmp_path: Path) -> None:
    authentication = Authentication(secrets(tmp_path, FILE))

    for headers in ({}, {"nemotron-secret": ""}, {"nemotron-secret": ALICE[:-1]}, {"nemotron-caller": "alice"}):
        with pytest.raises(AccessError, match="protocol is restricted"):
            authentication.caller(headers)
    for name in ("", "two words", "ü", "a" * 65):
        with pytest.raises(RequestError, match="nemotron-caller must have 1 to 64 visible ASCII characters"):
            authentication.caller({"nemotron-secret": GATEWAY, "nemotron-caller": name})


def test_without_secrets_everybody_may_call_and_nobody_has_a_name() -> None:
    assert Authentication.named_in({}).caller({"nemotron-secret": ALICE, "nemotron-caller": "alice"}) == ""


def test_who_is_struck_from_the_file_is_denied_from_the_next_request_on(tmp_path: Path) -> None:
    authentication = Authentication(secrets(tmp_path, FILE))

    secrets(tmp_path, f"bob: {BOB}")

    assert authentication.caller({"nemotron-secret": BOB}) == "bob"
    with pytest.raises(AccessError):
        authentication.caller({"nemotron-secret": ALICE})


def test_who_may_call_is_known_before_anybody_did(tmp_path: Path) -> None:
    authentication = Authentication(secrets(tmp_path, f"alice: {ALICE}"))
    before = authentication.names()

    secrets(tmp_path, f"alice: {ALICE}\ngateway bob: {BOB}")

    assert [sorted(names) for names in (before, authentication.names())] == [["alice"], ["alice", "bob"]]
    assert Authentication.named_in({}).names() == frozenset()


@pytest.mark.parametrize("change", ["broken", "empty", "readable", "gone"])
def test_a_file_that_can_no_longer_be_used_changes_nothing(
    tmp_path: Path, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = secrets(tmp_path, FILE)
    authentication = Authentication(file)

    if change == "gone":
        file.unlink()
    else:
        secrets(tmp_path, {"broken": "a b c", "empty": ""}.get(change, FILE), 0o644 if change == "readable" else 0o600)
    callers = [authentication.caller({"nemotron-secret": ALICE}) for _ in range(3)]

    assert callers == ["alice"] * 3
    # Said once, not for every request.
    assert caplog.text.count("the secrets stay as they were: ") == 1


def test_the_values_of_the_label_are_bounded_although_a_gateway_has_any_number_of_callers() -> None:
    labels = CallerLabels()

    values = {labels.label(f"front/{number}") for number in range(1000)}

    assert len(values) == 257
    assert "front/other" in values
    assert labels.label("front/0") == "front/0"
    assert labels.label("alice") == "alice"
