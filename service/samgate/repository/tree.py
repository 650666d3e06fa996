"""The files of a repository as text, by their path in it. Writing them is :mod:`samgate.repository.build`'s."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources

from samgate.repository.models import Batching, detector_config, model_configs, model_name
from samgate.repository.pbtxt import write_pbtxt
from samgate.repository.profiles import Profile
from samgate.variants.detectors import DetectorSpec
from samgate.variants.graphs import AnyGraph, GraphName
from samgate.variants.spec import NetworkSpec

VERSION = "1"
"""The folder of the one version that each model has."""

Parameters = Mapping[GraphName, Mapping[str, str]]
"""Of the models of one variant."""


def repository_files(
    profile: Profile,
    specs: Iterable[NetworkSpec],
    batching: Batching = "formed",
    parameters: Mapping[str, Parameters] | None = None,
    detectors: Mapping[DetectorSpec, Mapping[str, str]] | None = None,
) -> dict[str, str]:
    """Configurations and code of the models of ``specs`` and ``detectors`` under ``profile``; ``parameters``, by
    variant, come on top, as do those of each detector."""
    given = parameters or {}
    configs = [
        config for spec in specs for config in model_configs(spec, profile, batching, given.get(spec.name)).values()
    ]
    configs += [detector_config(spec, profile, batching, own) for spec, own in (detectors or {}).items()]
    files: dict[str, str] = {}
    for config in configs:
        files[f"{config.name}/config.pbtxt"] = write_pbtxt(config)
        if profile.backend == "python":
            files[f"{config.name}/{VERSION}/{profile.entry_file}"] = python_model()
    return files


def model_path(profile: Profile, variant: str, graph: AnyGraph) -> str:
    """Where the compiled graph belongs, which is never checked in."""
    return f"{model_name(variant, graph)}/{VERSION}/{profile.model_file}"


@cache
def python_model() -> str:
    """The source of the Python backend's models."""
    return resources.files("samgate.repository").joinpath("python_model.py").read_text(encoding="utf-8")
