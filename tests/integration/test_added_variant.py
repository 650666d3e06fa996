"""A variant that is added as docs/adding-a-variant.md says, by a module with its spec, is served as all others are."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from samgate import variants
from samgate.api.local import local_gateway
from samgate.client import Client
from samgate.config import EngineSettings, Settings
from variants_support import picture, reduced

MODULE = """
from dataclasses import replace

from samgate.variants.nanosam import SPEC

SPECS = (replace(SPEC, name="added", title="Added", graphs=("encoder", "decoder")),)
"""


def test_a_module_with_a_spec_is_all_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "added.py").write_text(MODULE)
    monkeypatch.setattr(variants, "__path__", [*variants.__path__, str(tmp_path)])
    found = variants._found()
    monkeypatch.delitem(sys.modules, "samgate.variants.added")
    assert found.keys() - variants.VARIANTS.keys() == {"added"}
    monkeypatch.setitem(variants.VARIANTS, "added", found["added"])
    settings = Settings(engine=EngineSettings(name="auto", precision="f32"), variants="added")
    with reduced(("added",), tmp_path / "home"), local_gateway(settings) as target, Client(target) as client:
        assert [one.name for one in client.variants() if one.served] == ["added"]
        image = picture(64, 96)
        answer = client.segment(image, points=[[40, 30]], labels=[1], variant="added")
        assert answer.masks[0].to_numpy().shape == image.shape[:2]
        everything = client.everything(image, strategy="grid", points_per_side=1, pred_iou_thresh=0, variant="added")
        assert everything.info.variant == "added"
