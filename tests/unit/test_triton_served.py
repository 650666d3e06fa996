"""What a Triton server's model configurations say of a variant."""

from __future__ import annotations

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from samgate.engines.triton.served import served_by
from samgate.errors import CompileError
from samgate.repository.models import model_configs
from samgate.repository.pbtxt import write_pbtxt
from samgate.repository.profiles import get_profile
from samgate.variants import get_variant
from samgate.variants.graphs import GraphName
from samgate.variants.spec import VariantSpec


def configs(spec: VariantSpec, profile: str) -> dict[GraphName, ModelConfig]:
    """As a server that serves the repository answers."""
    return {
        name: text_format.Parse(write_pbtxt(config), ModelConfig())
        for name, config in model_configs(spec, get_profile(profile)).items()
    }


def test_calls_hold_as_much_as_the_repository_says() -> None:
    served = served_by(get_variant("mobilesam"), configs(get_variant("mobilesam"), "tensorrt"), "here")
    assert (served.precision, served.best_images, served.best_prompts, served.max_images) == ("fp16", 8, 64, 8)
    assert served.instances == 2


@pytest.mark.parametrize("profile", ["tensorrt", "python-cpu"])
def test_calls_hold_no_more_prompts_than_a_decoder_was_compiled_for(profile: str) -> None:
    fastsam = get_variant("fastsam-s")
    assert max(shapes["P"].largest for shapes in fastsam.shapes.decoder) == 16
    assert served_by(fastsam, configs(fastsam, profile), "here").best_prompts == 16


def test_models_of_two_precisions_and_missing_ones_are_told() -> None:
    spec = get_variant("mobilesam")
    mixed = configs(spec, "tensorrt")
    mixed["decoder"].parameters["plan"].string_value = "int8"
    with pytest.raises(CompileError, match="not one precision plan, but fp16, int8"):
        served_by(spec, mixed, "here")
    del mixed["decoder"]
    with pytest.raises(CompileError, match="Triton here has no mobilesam_decoder"):
        served_by(spec, mixed, "here")
