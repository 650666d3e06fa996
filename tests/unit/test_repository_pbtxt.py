"""Dataclasses as protobuf text, read back by the real parser."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc.model_config_pb2 import ModelConfig as Message

from samgate.repository.pbtxt import write_pbtxt


class Kind(StrEnum):
    CPU = "KIND_CPU"


@dataclass(frozen=True)
class Parameter:
    string_value: str


@dataclass(frozen=True)
class Group:
    count: int
    kind: Kind
    profile: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cache:
    enable: bool


@dataclass(frozen=True)
class Config:
    name: str = ""
    max_batch_size: int = 0
    instance_group: tuple[Group, ...] = ()
    response_cache: Cache | None = None
    parameters: Mapping[str, Parameter] = field(default_factory=dict)


def test_the_text_is_what_triton_s_own_files_look_like() -> None:
    config = Config(
        "m", 8, (Group(2, Kind.CPU, ("0", "1")),), Cache(enable=False), {"b": Parameter("2"), "a": Parameter("1")}
    )
    assert write_pbtxt(config) == (
        'name: "m"\n'
        "max_batch_size: 8\n"
        "instance_group {\n"
        "  count: 2\n"
        "  kind: KIND_CPU\n"
        '  profile: ["0", "1"]\n'
        "}\n"
        "response_cache {\n"
        "  enable: false\n"
        "}\n"
        "parameters {\n"
        '  key: "a"\n'
        "  value {\n"
        '    string_value: "1"\n'
        "  }\n"
        "}\n"
        "parameters {\n"
        '  key: "b"\n'
        "  value {\n"
        '    string_value: "2"\n'
        "  }\n"
        "}\n"
    )


def test_what_is_unset_or_empty_is_left_out_and_zero_is_not() -> None:
    assert write_pbtxt(Config()) == "max_batch_size: 0\n"


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_survives(text: str) -> None:
    message = text_format.Parse(write_pbtxt(Config(name="m", parameters={"key": Parameter(text)})), Message())
    assert message.parameters["key"].string_value == text


def test_a_value_without_a_text_form_is_refused() -> None:
    with pytest.raises(TypeError, match=r"1\.5"):
        write_pbtxt(Group(1.5, Kind.CPU))  # type: ignore[arg-type]
