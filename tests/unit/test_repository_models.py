"""The configurations of all profiles, read by the real parser."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import get_args

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig as Message

from samgate.errors import NotFound
from samgate.repository.models import Batching, model_configs, model_name, plan_of, served_graphs
from samgate.repository.pbtxt import write_pbtxt
from samgate.repository.profiles import PROFILES, Profile, get_profile
from samgate.repository.readme import readme
from samgate.repository.tree import model_path, python_model, repository_files
from samgate.variants import VARIANTS
from samgate.variants.clip import MOST_CROPS, VIT_B_32
from samgate.variants.graphs import GraphName, graph_specs
from samgate.variants.mobilesam import SPEC

ALL = [pytest.param(profile, id=name) for name, profile in PROFILES.items()]


def parsed(profile: Profile, batching: Batching = "formed") -> dict[GraphName, Message]:
    configs = model_configs(SPEC, profile, batching)
    return {name: text_format.Parse(write_pbtxt(config), Message()) for name, config in configs.items()}


@pytest.mark.parametrize("batching", get_args(Batching))
@pytest.mark.parametrize("profile", ALL)
def test_every_model_has_its_tensors_and_no_cache(profile: Profile, batching: Batching) -> None:
    for name, message in parsed(profile, batching).items():
        graph = graph_specs(SPEC)[name]
        assert message.name == model_name("mobilesam", name)
        assert [one.name for one in message.input] == [one.name for one in graph.inputs]
        assert [one.name for one in message.output] == [one.name for one in graph.outputs]
        for told, tensor in zip((*message.input, *message.output), (*graph.inputs, *graph.outputs), strict=True):
            full = [-1] * bool(message.max_batch_size) + list(told.dims)
            assert full == [size if isinstance(size, int) else -1 for size in tensor.shape], tensor.name
        assert not message.response_cache.enable
        assert message.version_policy.latest.num_versions == 1


@pytest.mark.parametrize("profile", ALL)
def test_formed_batches_go_without_triton_s_batcher(profile: Profile) -> None:
    assert not any(message.HasField("dynamic_batching") for message in parsed(profile).values())


@pytest.mark.parametrize("profile", ALL)
def test_bounded_queues_are_bounded_and_neither_merge_nor_delay(profile: Profile) -> None:
    for message in parsed(profile, "bounded").values():
        policy = message.dynamic_batching.default_queue_policy
        assert (policy.max_queue_size, policy.allow_timeout_override) == (16, True)
        assert policy.default_timeout_microseconds == 60_000_000
        assert message.dynamic_batching.max_queue_delay_microseconds == 0
        assert list(message.dynamic_batching.preferred_batch_size) == ([1] if message.max_batch_size else [])


def test_dynamic_batching_merges_what_has_a_batch_axis() -> None:
    messages = parsed(PROFILES["python-cpu"], "dynamic")
    delays = {name: message.dynamic_batching.max_queue_delay_microseconds for name, message in messages.items()}
    assert delays == {"encoder": 2000, "decoder": 2000, "masked_decoder": 2000, "scores": 0}
    assert not any(message.dynamic_batching.HasField("default_queue_policy") for message in messages.values())
    merging = {name: message.parameters["merge"].string_value for name, message in messages.items()}
    assert merging == {
        "encoder": "false",
        "decoder": "true",
        "masked_decoder": "true",
        "scores": "false",
    }


def test_batch_sizes_are_the_largest_that_any_profile_takes() -> None:
    sizes = {name: message.max_batch_size for name, message in parsed(PROFILES["tensorrt"]).items()}
    assert sizes == {"encoder": 8, "decoder": 8, "masked_decoder": 8, "scores": 0}


def test_tensorrt_instances_name_every_optimisation_profile() -> None:
    groups = {name: message.instance_group[0] for name, message in parsed(PROFILES["tensorrt"]).items()}
    named = {name: list(group.profile) for name, group in groups.items()}
    assert named == {"encoder": ["0"], "decoder": ["0", "1"], "masked_decoder": ["0", "1"], "scores": ["0"]}
    assert {name: group.count for name, group in groups.items()} == {
        "encoder": 2,
        "decoder": 2,
        "masked_decoder": 1,
        "scores": 1,
    }


def test_openvino_s_own_backend_is_told_of_no_batch_axis() -> None:
    assert {message.max_batch_size for message in parsed(PROFILES["openvino"]).values()} == {0}


@pytest.mark.parametrize("profile", ALL)
def test_warm_ups_hold_shapes_that_the_model_takes(profile: Profile) -> None:
    for name, message in parsed(profile).items():
        assert len(message.model_warmup) == len(graph_specs(SPEC)[name].profiles)
        for warmup in message.model_warmup:
            assert set(warmup.inputs) == {one.name for one in message.input}
            for one in message.input:
                given = warmup.inputs[one.name]
                assert given.data_type == one.data_type
                assert all(size in (-1, got) and got > 0 for size, got in zip(one.dims, given.dims, strict=True))


def test_cpus_warm_up_with_as_many_prompts_as_they_are_given() -> None:
    def prompts(profile: Profile) -> list[int]:
        message = parsed(profile)["decoder"]
        return [warmup.inputs["point_labels"].dims[-2] for warmup in message.model_warmup]

    assert prompts(PROFILES["python-cpu"]) == [1, 16]
    assert prompts(PROFILES["tensorrt"]) == [1, 64]


def test_the_python_backend_learns_shapes_and_arithmetic_from_parameters() -> None:
    messages = parsed(PROFILES["python-cpu"])
    encoder = {key: value.string_value for key, value in messages["encoder"].parameters.items()}
    assert encoder == {
        "axes": "image:N,1024,1024,3 valid:N,2",
        "batch": "1",
        "best_batch": "1",
        "best_prompts": "16",
        "merge": "false",
        "plan": "f32",
        "precision": "f32",
        "threads": "0",
    }
    assert "batch" not in messages["decoder"].parameters


def test_given_parameters_come_on_top() -> None:
    configs = model_configs(SPEC, PROFILES["python-cpu"], parameters={"decoder": {"precision": "bf16"}})
    assert configs["decoder"].parameters["precision"].string_value == "bf16"
    assert configs["encoder"].parameters["precision"].string_value == "f32"


def test_all_python_models_are_the_same_file() -> None:
    files = repository_files(PROFILES["python-cpu"], [SPEC])
    code = {path: text for path, text in files.items() if path.endswith(".py")}
    assert len(code) == len(served_graphs(SPEC, PROFILES["python-cpu"])) == 4
    assert set(code.values()) == {python_model()}
    assert "import samgate" not in python_model()
    assert "from samgate" not in python_model()


def test_paths_of_compiled_graphs() -> None:
    assert model_path(PROFILES["tensorrt"], "mobilesam", "scores") == "mobilesam_scores/1/model.plan"
    assert model_path(PROFILES["python-cpu"], "mobilesam", "encoder") == "mobilesam_encoder/1/model.onnx"


def test_the_readme_names_every_model_and_tensor() -> None:
    text = readme([*VARIANTS.values(), VIT_B_32])
    served = {name for profile in PROFILES.values() for name in profile.graphs}
    for spec in (SPEC, VIT_B_32):
        graphs = [graph for graph in graph_specs(spec).values() if graph.name in served]
        assert len(graphs) == len(served & set(spec.graphs)) > 1
        for graph in graphs:
            assert f"`{model_name(spec.name, graph.name)}`" in text
            assert all(f"`{tensor.name}` {tensor.dtype}" in text for tensor in (*graph.inputs, *graph.outputs))


def test_a_text_model_is_in_a_precision_that_it_has() -> None:
    plans = replace(PROFILES["tensorrt"], plan="int8")
    assert plan_of(SPEC, plans) == "int8"
    assert plan_of(VIT_B_32, plans) == "fp16"
    assert plan_of(VIT_B_32, replace(plans, plan="f32")) == "f32"
    configs = model_configs(VIT_B_32, plans)
    assert set(configs) == {"image_features", "text_features"}
    assert configs["image_features"].parameters["plan"].string_value == "fp16"
    assert configs["image_features"].max_batch_size == MOST_CROPS


def test_the_same_specs_give_the_same_bytes() -> None:
    first, second = (json.dumps(repository_files(PROFILES["tensorrt"], [SPEC])) for _ in range(2))
    assert first == second


def test_an_unknown_profile_is_told_which_there_are() -> None:
    with pytest.raises(NotFound, match=r"'cuda' is unknown; known: tensorrt, openvino, onnxruntime, python-cpu"):
        get_profile("cuda")
