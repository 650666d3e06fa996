"""What a target is compiled with on this machine."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

from samgate.compile.container import CHART, commands
from samgate.compile.targets import Target
from samgate.compile.tensorrt import gpu_capability, known_capabilities, load_module, sm
from samgate.errors import CompileError, InvalidArgument
from samgate.variants.detectors import DetectorSpec
from samgate.variants.spec import NetworkSpec


@dataclass(frozen=True, slots=True)
class Toolchain:
    """``library`` and its ``version``; for TensorRT its ``module``, and the ``capabilities`` to compile for."""

    library: str
    version: str
    module: ModuleType | None
    capabilities: tuple[str | None, ...]


def find_toolchain(
    spec: NetworkSpec | DetectorSpec, target: Target, precision: str, capabilities: Sequence[str]
) -> Toolchain:
    """What compiles ``target`` here.

    Args:
        capabilities: of the GPUs to compile for, such as ``8.9``; empty for this machine's.

    Raises:
        CompileError: something is missing, with the way to get it.
        InvalidArgument: ``capabilities`` can't be compiled for.
    """
    if target.module is None:
        if capabilities:
            raise InvalidArgument("compute-capability", f"is for plans for GPUs; {target.name} has none")
        return Toolchain(target.runtime, importlib.metadata.version(target.runtime), None, (None,))
    module, here = load_module(target.module), gpu_capability()
    known = {} if module is None else known_capabilities(module)
    if module is None and target.name == "tensorrt-rtx":
        raise CompileError("TensorRT-RTX is missing: pip install 'samgate[tensorrt]'")
    if module is None or (not known and here is None):
        missing = f"the Python module {target.module}" if module is None else "a GPU"
        raise CompileError(
            f"{target.name} plans are built on a GPU of the kind that will serve, with the TensorRT of the server; "
            f"{missing} is missing here. On such a machine, in a checkout of samgate:\n{commands(spec, precision)}\n"
            f"On Kubernetes: the chart {CHART} with modelStore.mode pvc or objectStorage"
        )
    wanted = tuple(capabilities) or ((here,) if here else ())
    if not wanted:
        raise InvalidArgument("compute-capability", f"there is no GPU here to go by: name one of {_dotted(known)}")
    if known:
        unknown = [one for one in wanted if sm(one) not in known]
        if unknown:
            raise InvalidArgument("compute-capability", f"{unknown[0]} is none of {_dotted(known)}")
    elif set(wanted) != {here}:
        raise InvalidArgument(
            "compute-capability", f"{target.name} compiles for the GPU that is here, which has {here}"
        )
    return Toolchain(target.module, str(module.__version__), module, tuple(dict.fromkeys(wanted)))


def _dotted(known: Sequence[str] | dict[str, object]) -> str:
    return ", ".join(f"{name[2:-1]}.{name[-1]}" for name in known)
