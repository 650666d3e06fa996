"""A load test hits this machine, or what was named on purpose; and a token never goes in plain text."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.targets import Files, check_target, check_token, is_local, read_files, token_from
from samgate.errors import InvalidArgument, SamgateError

LOCAL = (
    "127.0.0.1:50051",
    "127.9.8.7:1",
    "localhost:65535",
    "[::1]:50051",
    "unix:/run/samgate.sock",
    "unix-abstract:samgate",
)
ELSEWHERE = (
    "10.0.0.1:50051",
    "0.0.0.0:50051",
    "[::]:50051",
    "[2001:db8::1]:50051",
    "::1:50051",
    "gateway.example.com:443",
    "localhost.example.com:443",
    "127.0.0.1.example.com:443",
    "127.0.0.1:50051,10.0.0.1:50051",
    "localhost",
    "localhost:0",
    "localhost:65536",
    "localhost:+1",
    "localhost:٣",
    "LOCALHOST.:1",
    "dns:///localhost:50051",
    "ipv4:127.0.0.1:50051,10.0.0.1:50051",
    "",
    ":50051",
)


@pytest.mark.parametrize("target", LOCAL)
def test_this_machine_needs_no_leave(target: str) -> None:
    assert is_local(target)
    check_target(target, "")


@pytest.mark.parametrize("target", ELSEWHERE)
def test_anything_else_is_refused_unless_it_is_named_exactly(target: str) -> None:
    assert not is_local(target)
    with pytest.raises(InvalidArgument, match="which is not this machine"):
        check_target(target, "")
    with pytest.raises(InvalidArgument, match="allowed is 'other:1'"):
        check_target(target, "other:1")
    if target:
        check_target(target, target)


def test_the_refusal_says_how_to_name_the_target() -> None:
    with pytest.raises(InvalidArgument, match="--allow-target db:1 or SAMGATE_ALLOW_TARGET=db:1"):
        check_target("db:1", "")


@pytest.mark.parametrize("target", ["http://127.0.0.1:50051", "https://gateway"])
def test_an_address_of_a_page_is_no_target_even_when_it_is_allowed(target: str) -> None:
    with pytest.raises(InvalidArgument, match="HOST:PORT, without a scheme"):
        check_target(target, target)


@given(st.text(max_size=40))
def test_no_text_breaks_the_check(target: str) -> None:
    if not is_local(target):
        with pytest.raises(InvalidArgument):
            check_target(target, "")


def test_a_token_crosses_a_network_only_encrypted() -> None:
    check_token("127.0.0.1:1", "secret", Files())
    check_token("db:1", "secret", Files(ca="ca.pem"))
    check_token("db:1", "", Files())
    with pytest.raises(SamgateError, match="must not cross a network unencrypted") as refused:
        check_token("db:1", "secret", Files())
    assert "secret" not in str(refused.value)
    assert token_from({"SAMGATE_TOKEN": "secret"}) == "secret"


def test_files_are_read_whole_and_a_certificate_comes_with_its_key(tmp_path: Path) -> None:
    for name in ("ca", "certificate", "key"):
        (tmp_path / name).write_text(name)
    ca, certificate, key = (str(tmp_path / name) for name in ("ca", "certificate", "key"))
    assert read_files(Files(ca)) == (b"ca", None, None)
    assert read_files(Files(ca, certificate, key)) == (b"ca", b"certificate", b"key")
    with pytest.raises(InvalidArgument, match="go together"):
        read_files(Files(ca, certificate))
    with pytest.raises(SamgateError, match="can't be read"):
        read_files(Files(str(tmp_path / "none")))
