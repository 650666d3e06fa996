"""Downloads: resumed, bounded, and never trusted before their checksum is right."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from rich.progress import Progress

from samgate.errors import WeightsError
from samgate.variants.spec import UrlSource
from samgate.weights import download as module
from samgate.weights.download import download
from weights_support import Served, closed_url, home, serving, sha256

__all__ = ["home"]

BODY = bytes(range(256)) * 4096  # 1 MiB: several chunks


@pytest.fixture
def progress() -> Progress:
    return Progress(disable=True)


def source(url: str, body: bytes = BODY) -> UrlSource:
    return UrlSource(url=url, sha256=sha256(body), size=len(body))


def part_of(folder: Path) -> Path:
    return folder / f"{sha256(BODY)}.part"


def test_a_download_is_verified_named_by_its_checksum_and_shown(tmp_path: Path, progress: Progress) -> None:
    served = Served(BODY)
    with serving(served) as url:
        path = download(source(url), tmp_path, progress)
        assert download(source(url), tmp_path, progress) == path
    assert path.read_bytes() == BODY
    assert [item.name for item in tmp_path.iterdir()] == [sha256(BODY)]
    assert served.asked == [None]  # the second call found the file
    assert (progress.tasks[0].description, progress.tasks[0].total) == ("tiny.pt", len(BODY))
    assert progress.tasks[0].completed == len(BODY)


def test_a_size_that_nobody_published_is_the_servers(tmp_path: Path, progress: Progress) -> None:
    served = Served(BODY, cuts=[300_000, 400_000])
    with serving(served) as url:
        path = download(UrlSource(url, sha256(BODY)), tmp_path, progress)
    assert path.read_bytes() == BODY
    assert progress.tasks[0].total == len(BODY)
    # Once for the size; what came of it isn't kept.
    assert served.asked[0] is None
    assert served.asked[1] is None


@pytest.mark.parametrize(("kind", "declared"), [("text/html", True), ("application/octet-stream", False)])
def test_an_answer_without_a_size_is_refused_where_nobody_published_it(
    tmp_path: Path, progress: Progress, kind: str, declared: bool
) -> None:
    with serving(Served(BODY, kind=kind, declare_length=declared)) as url, pytest.raises(WeightsError, match="a size"):
        download(UrlSource(url, sha256(BODY)), tmp_path, progress)
    assert not list(tmp_path.iterdir())
    with pytest.raises(WeightsError, match="Connection refused"):
        download(UrlSource(closed_url(), sha256(BODY)), tmp_path, progress)


def test_a_cut_connection_is_resumed_within_the_call(tmp_path: Path, progress: Progress) -> None:
    served = Served(BODY, cuts=[300_000, 400_000])
    with serving(served) as url:
        assert download(source(url), tmp_path, progress).read_bytes() == BODY
    assert served.asked == [None, "bytes=300000-", "bytes=700000-"]


def test_what_came_before_a_failure_is_kept_for_the_next_call(tmp_path: Path, progress: Progress) -> None:
    served = Served(BODY, cuts=[1000, 0])
    with serving(served) as url:
        with pytest.raises(WeightsError, match=r"ended after 1,000 of 1,048,576 bytes; 1,000 of 1,048,576 .* kept"):
            download(source(url), tmp_path, progress)
        assert part_of(tmp_path).read_bytes() == BODY[:1000]
        assert download(source(url), tmp_path, progress).read_bytes() == BODY
    assert served.asked == [None, "bytes=1000-", "bytes=1000-"]


def test_a_server_that_drips_is_not_asked_for_ever(tmp_path: Path, progress: Progress) -> None:
    served = Served(BODY, cuts=[10] * 50)
    with serving(served) as url, pytest.raises(WeightsError, match="kept"):
        download(source(url), tmp_path, progress)
    assert len(served.asked) == 5


def test_a_server_without_ranges_sends_everything_again(tmp_path: Path, progress: Progress) -> None:
    part_of(tmp_path).write_bytes(BODY[:5000])
    with serving(Served(BODY, ranges=False)) as url:
        assert download(source(url), tmp_path, progress).read_bytes() == BODY


def test_a_wrong_part_is_thrown_away_and_fetched_once_more(tmp_path: Path, progress: Progress) -> None:
    part_of(tmp_path).write_bytes(b"x" * 5000)
    served = Served(BODY)
    with serving(served) as url:
        assert download(source(url), tmp_path, progress).read_bytes() == BODY
    assert served.asked == ["bytes=5000-", None]


@pytest.mark.parametrize("size", [len(BODY), len(BODY) + 1], ids=["full", "overlong"])
def test_a_wrong_part_of_full_size_is_replaced(tmp_path: Path, progress: Progress, size: int) -> None:
    part_of(tmp_path).write_bytes(b"x" * size)
    with serving(Served(BODY)) as url:
        assert download(source(url), tmp_path, progress).read_bytes() == BODY


def test_a_complete_part_needs_no_network(tmp_path: Path, progress: Progress) -> None:
    part_of(tmp_path).write_bytes(BODY)
    assert download(source(closed_url()), tmp_path, progress).read_bytes() == BODY


def test_a_file_damaged_after_its_download_is_fetched_again(tmp_path: Path, progress: Progress) -> None:
    (tmp_path / sha256(BODY)).write_bytes(b"x" * len(BODY))
    with serving(Served(BODY)) as url:
        assert download(source(url), tmp_path, progress).read_bytes() == BODY


def test_a_wrong_checksum_is_named_and_leaves_nothing(tmp_path: Path, progress: Progress) -> None:
    other = b"y" * len(BODY)
    expected = rf"wrong checksum: expected SHA-256 {sha256(BODY)}, got {sha256(other)}"
    with serving(Served(other)) as url, pytest.raises(WeightsError, match=expected):
        download(source(url), tmp_path, progress)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("declare_length", [True, False])
def test_a_web_page_instead_of_the_file_does_not_touch_the_part(
    tmp_path: Path, progress: Progress, declare_length: bool
) -> None:
    part_of(tmp_path).write_bytes(BODY[:5000])
    page = Served(b"<html>log in</html>", ranges=False, kind="text/html", declare_length=declare_length)
    with serving(page) as url, pytest.raises(WeightsError, match=r"sent text/html .*instead of the file of 1,048,576"):
        download(source(url), tmp_path, progress)
    assert part_of(tmp_path).read_bytes() == BODY[:5000]


def test_a_file_of_another_size_is_refused_at_once(tmp_path: Path, progress: Progress) -> None:
    with serving(Served(BODY[:-1])) as url, pytest.raises(WeightsError, match="of 1,048,575 bytes instead of"):
        download(source(url), tmp_path, progress)
    assert list(tmp_path.iterdir()) == []


def test_an_endless_answer_is_cut_off(tmp_path: Path, progress: Progress) -> None:
    with serving(Served(BODY * 2, declare_length=False)) as url, pytest.raises(WeightsError, match="more than the"):
        download(source(url), tmp_path, progress)
    assert list(tmp_path.iterdir()) == []


def test_a_size_that_nobody_published_has_a_limit(
    tmp_path: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", len(BODY) - 1)
    said = rf"would send {len(BODY):,} bytes; the limit is {len(BODY) - 1:,}"
    with serving(Served(BODY)) as url, pytest.raises(WeightsError, match=said):
        download(UrlSource(url, sha256(BODY)), tmp_path, progress)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("status", "reason"), [(404, "Not Found"), (403, "Forbidden"), (503, "Service Unavailable")])
def test_a_refusal_is_passed_on(tmp_path: Path, progress: Progress, status: int, reason: str) -> None:
    with serving(Served(b"no", status=status)) as url, pytest.raises(WeightsError, match=f"{status} {reason}"):
        download(source(url), tmp_path, progress)
    assert list(tmp_path.iterdir()) == []


def test_nobody_listening_is_an_error_at_once(tmp_path: Path, progress: Progress) -> None:
    with pytest.raises(WeightsError, match="Connection refused"):
        download(source(closed_url()), tmp_path, progress)
    assert list(tmp_path.iterdir()) == []


def test_a_part_that_the_server_has_no_more_bytes_for_is_dropped(tmp_path: Path, progress: Progress) -> None:
    part_of(tmp_path).write_bytes(BODY[:5000])
    served = Served(BODY[:100])
    with serving(served) as url, pytest.raises(WeightsError, match="of 100 bytes instead of"):
        download(source(url), tmp_path, progress)
    assert served.asked == ["bytes=5000-", None]
    assert not part_of(tmp_path).exists()


def test_a_download_does_not_go_on_for_ever(
    tmp_path: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TOTAL_TIMEOUT_S", 0.0)
    with serving(Served(BODY)) as url, pytest.raises(WeightsError, match="not finished within 0 s"):
        download(source(url), tmp_path, progress)


def test_a_server_that_says_nothing_is_given_up(
    tmp_path: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "READ_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never answers
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/tiny.pt"
        with pytest.raises(WeightsError, match=r"no data for 0\.2 s"):
            download(source(url), tmp_path, progress)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, progress: Progress) -> None:
    with serving(Served(BODY)) as url, pytest.raises(WeightsError, match="missing can't be written"):
        download(source(url), tmp_path / "missing", progress)
