"""``samgate pull`` and ``samgate variants``: what they print and write."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import pytest

from samgate.cli.weights import add_parsers
from samgate.errors import NotFound, SamgateError, WeightsError
from samgate.variants import VARIANTS
from samgate.variants.clip import TEXT_MODELS
from samgate.variants.detectors import DETECTORS
from weights_support import PACKED, fake_spec, home, npm_source, small_network, tgz

__all__ = ["home", "small_network"]
pytestmark = pytest.mark.usefixtures("small_network")


@pytest.fixture(autouse=True)
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An archive with the weights of ``tiny``, the only variant there is."""
    spec = fake_spec(npm_source())
    for known in (VARIANTS, DETECTORS, TEXT_MODELS):
        # Backwards, as they are put back the other way round: their order shows in what other tests compare.
        for name in reversed(tuple(known)):
            monkeypatch.delitem(known, name)
    monkeypatch.setitem(VARIANTS, spec.name, spec)
    monkeypatch.setenv("COLUMNS", "200")
    path = tmp_path / "tiny.tgz"
    path.write_bytes(tgz(PACKED))
    return path


def run(*arguments: str | Path) -> int:
    parser = argparse.ArgumentParser(prog="samgate")
    add_parsers(parser.add_subparsers())
    args = parser.parse_args([str(argument) for argument in arguments])
    status: int = args.run(args)
    return status


def test_pull_says_what_is_installed_and_where_it_is_from(
    archive: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("pull", "tiny", "--from", archive) == 0
    out = capsys.readouterr().out
    assert "MobileSAM is installed" in out
    assert f"file    {home / 'weights' / 'tiny.safetensors'}\n" in out
    assert "origin  npm:tiny@1.0.0\n" in out
    assert run("pull", "tiny") == 0
    assert "was already installed (--force replaces it)" in capsys.readouterr().out


def test_pull_as_json_is_nothing_but_json(archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("pull", "tiny", "--from", archive, "--json", "-")
    answer = json.loads(capsys.readouterr().out)
    assert set(answer) == {"already_installed", "path", "bytes", "sha256", "origin"}
    assert answer["already_installed"] is False
    assert answer["origin"] == {"variant": "tiny", "source": "npm:tiny@1.0.0", "files": npm_source().files}
    run("pull", "tiny", "--json", tmp_path / "answer.json")
    assert json.loads((tmp_path / "answer.json").read_text()) == answer | {"already_installed": True}
    run("pull", "tiny", "--from", archive, "--force", "--json", "-")
    assert '"already_installed": false' in capsys.readouterr().out


def test_pull_of_an_unknown_variant_lists_the_known() -> None:
    with pytest.raises(NotFound, match="known: tiny"):
        run("pull", "huge")


def test_pull_passes_errors_on(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="can't be read"):
        run("pull", "tiny", "--from", tmp_path / "missing")


def test_variants_shows_one_line_each(archive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("variants")
    before = capsys.readouterr().out
    for expected in ("box mIoU", "tiny", "not installed", "Apache-2.0", "10.10 M", "73.4", "48.6"):
        assert expected in before
    run("pull", "tiny", "--from", archive)
    capsys.readouterr()
    run("variants")
    after = capsys.readouterr().out
    assert "not installed" not in after
    assert "npm:tiny@1.0.0" in after


def test_variants_that_share_weights_are_installed_together(
    archive: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = replace(VARIANTS["tiny"], name="tiny-small", weights="tiny", input_size=512)
    monkeypatch.setitem(VARIANTS, small.name, small)
    run("pull", "tiny-small", "--from", archive)
    run("pull", "tiny")
    assert "was already installed" in capsys.readouterr().out
    run("variants")
    out = capsys.readouterr().out
    assert "not installed" not in out
    assert "shared" in out
    run("variants", "--json", "-")
    answer = json.loads(capsys.readouterr().out)
    assert {one["weights_name"] for one in answer} == {"tiny"}
    assert [one["input_size"] for one in answer] == [1024, 512]
    assert answer[0]["weights"] == answer[1]["weights"]


def test_variants_as_json(archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("variants", "--json", "-")
    (answer,) = json.loads(capsys.readouterr().out)
    assert (answer["name"], answer["installed"], answer["weights"]) == ("tiny", False, None)
    assert answer["published"]["box_miou"] == 73.4
    run("pull", "tiny", "--from", archive)
    run("variants", "--json", tmp_path / "variants.json")
    (answer,) = json.loads((tmp_path / "variants.json").read_text())
    assert answer["installed"] is True
    assert answer["weights"]["bytes"] > 0
    with pytest.raises(SamgateError, match="can't be written"):
        run("variants", "--json", tmp_path / "missing" / "variants.json")


@pytest.mark.parametrize("command", ["pull", "variants"])
def test_help_has_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(command, "--help")
    assert ended.value.code == 0
    assert f"examples:\n  samgate {command}" in capsys.readouterr().out
