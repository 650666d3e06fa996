"""Where the server is refused, and what the refusal says."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from samgate.triton.errors import TritonError
from samgate.triton.platforms import PYTHONS, Python, check_platform, probe

GLIBC = ("glibc", "2.36")


def test_linux_on_x86_with_a_recent_glibc_will_do() -> None:
    check_platform("Linux", "x86_64", GLIBC)
    check_platform("Linux", "AMD64", ("glibc", "2.35"))


@pytest.mark.parametrize(
    ("system", "machine", "libc", "said"),
    [
        ("Darwin", "arm64", ("", ""), "not on Darwin on arm64"),
        ("Windows", "AMD64", ("", ""), "not on Windows on AMD64"),
        ("Linux", "aarch64", GLIBC, "not on Linux on aarch64"),
        ("Linux", "x86_64", ("glibc", "2.31"), "this is glibc 2.31"),
        ("Linux", "x86_64", ("", ""), "this is another libc"),
        ("Linux", "x86_64", ("musl", "1.2.5"), "this is musl 1.2.5"),
    ],
)
def test_elsewhere_the_refusal_says_what_to_do(system: str, machine: str, libc: tuple[str, str], said: str) -> None:
    with pytest.raises(TritonError, match=said) as caught:
        check_platform(system, machine, libc)
    assert "--triton-endpoints HOST:PORT" in str(caught.value)


def test_a_path_that_is_no_python_is_told_apart(tmp_path: Path) -> None:
    assert "can't be run" in str(probe(tmp_path / "python3"))


def test_this_python_is_probed_for_real() -> None:
    found = probe(Path(sys.executable))
    if sys.version_info[:2] in PYTHONS:
        assert isinstance(found, Python)
        assert found.version == sys.version_info[:2]
        assert list(found.library.glob("libpython3*"))
    else:
        assert found == f"{sys.executable} is Python {sys.version_info[0]}.{sys.version_info[1]}"
