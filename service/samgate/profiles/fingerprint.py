"""What a profile is valid for: the processor, the engine, and how much of both it gets."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from dataclasses import asdict, dataclass, fields
from typing import Any

from samgate.bench.machine import this_machine
from samgate.compile.artifacts import artifact_key
from samgate.compile.graphs import graphs_key
from samgate.compile.targets import TARGETS
from samgate.config import Settings
from samgate.engines.base import Engine
from samgate.engines.cpu import DECODE_PROMPTS, ENCODE_BATCH, usable_cores
from samgate.engines.load import choose_runtime, wants_triton
from samgate.errors import ProfileError
from samgate.variants.spec import VariantSpec
from samgate.weights import store


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """A machine and an engine on it.

    ``cores`` are those that the process may use, ``features`` the CPU flags that decide which kernels run. ``runtime``
    is the version of the engine's library, or where Triton's servers are. ``threads`` are the engine's;
    ``encode_batch`` images and ``decode_prompts`` prompts go into a call, 0 where Triton's repository says how many.
    """

    cpu: str
    cores: int
    features: tuple[str, ...]
    engine: str
    runtime: str
    threads: int
    encode_batch: int
    decode_prompts: int

    @property
    def key(self) -> str:
        """A short hash of all fields, which names the profile's file."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    def sentence(self) -> str:
        """All of it, for people."""
        return ", ".join(_say(item.name, getattr(self, item.name)) for item in fields(self))

    def differences(self, here: Fingerprint) -> list[str]:
        """Why a profile of this fingerprint says nothing of ``here``, a phrase for each field; empty if it does."""
        return [
            f"{_say(item.name, getattr(self, item.name))}, while this machine has {_say(item.name, value)}"
            for item in fields(self)
            if getattr(self, item.name) != (value := getattr(here, item.name))
        ]

    def require(self, here: Fingerprint, name: str) -> None:
        """Raises ProfileError that tells in which fields ``here`` differs from what the profile ``name`` is for."""
        if found := self.differences(here):
            raise ProfileError(f"{name} was measured with {'; with '.join(found)}: run `samgate profile`")


def this_fingerprint(settings: Settings) -> Fingerprint:
    """This machine with the engine that ``settings`` ask for. Loads nothing. Raises InvalidArgument."""
    machine, engine = this_machine(), settings.engine
    if wants_triton(engine):
        name, runtime = "triton", _triton(settings.triton.endpoints)
        batch, prompts = engine.max_encode_batch, engine.max_decode_prompts
    else:
        name = "torch" if engine.name == "torch" else choose_runtime(engine)
        runtime = importlib.metadata.version(name)
        if name == "torch":
            runtime += f" on {_torch_device()}"
        batch, prompts = engine.max_encode_batch or ENCODE_BATCH, engine.max_decode_prompts or DECODE_PROMPTS
    threads = engine.threads or usable_cores()
    return Fingerprint(machine.cpu, machine.cores, machine.features, name, runtime, threads, batch, prompts)


def graphs_identity(spec: VariantSpec, engine: Engine) -> str:
    """A hash of what ``engine`` runs: weights, plan and the code that draws the graphs. Empty where only servers
    know."""
    weights = store.installed(spec)
    target = next((one for one in TARGETS.values() if one.module is None and one.runtime == engine.name), None)
    plan = spec.precisions.get(engine.precision)
    if weights is not None and engine.name == "torch":
        return graphs_key(spec, weights.sha256)
    if weights is None or target is None or plan is None:
        return ""
    if "int8" in plan.arithmetics:
        return artifact_key(spec, target, engine.precision, weights.sha256)
    return graphs_key(spec, weights.sha256)


def _torch_device() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "the CPU"


def _triton(endpoints: str) -> str:
    from samgate.engines.triton.discovery import endpoints as addresses
    from samgate.engines.triton.servers import is_here

    urls = addresses(endpoints) if endpoints else []
    return "on this machine" if all(map(is_here, urls)) else ",".join(sorted(urls))


def _say(field: str, value: Any) -> str:
    match field:
        case "cpu":
            return f"the CPU {value}"
        case "features":
            return f"the CPU features {', '.join(value) or 'none of note'}"
        case "cores":
            return f"{value} core{'s' * (value != 1)}"
        case "threads":
            return f"{value} engine thread{'s' * (value != 1)}"
        case "encode_batch" | "decode_prompts":
            thing, call = ("image", "encode") if field == "encode_batch" else ("prompt", "decode")
            return (
                f"{value} {thing}{'s' * (value != 1)} a call to {call}"
                if value
                else f"as many {thing}s a call to {call} as Triton says"
            )
        case _:
            return f"the {field} {value}"
