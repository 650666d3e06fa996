"""``samgate repository build``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast, get_args

from samgate.compile.detector import ensure_detector
from samgate.compile.graphs import GraphFiles, ensure_graphs
from samgate.errors import InvalidArgument
from samgate.repository.build import Differences, all_files, compare, place_models, write_files
from samgate.repository.models import Batching, detector_plan, plan_of, served_graphs
from samgate.repository.profiles import PROFILES, Profile, get_profile
from samgate.repository.tree import model_path
from samgate.variants import DEFAULT_VARIANT, VARIANTS, get_variant
from samgate.variants.clip import TEXT_MODELS
from samgate.variants.detectors import DETECTORS, DetectorSpec
from samgate.variants.spec import NetworkSpec
from samgate.weights.detector_store import installed_detectors, require_detector

DEFAULT_FOLDER = Path("model_repository")

_DESCRIPTION = """\
Write Triton's model repository from the variants' specs: configurations, and code where the backend runs Python.

Run in a checkout, without options, it brings model_repository/ up to date. With --models and --output it writes a
repository that Triton can serve, graphs included."""

_EXAMPLES = """\
examples:
  samgate repository build
  samgate repository build --check
  samgate repository build --profile openvino --models --output /srv/models
  samgate repository build --profile tensorrt --models --precision fp16 --compute-capability 8.9 --output /srv/models"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = commands.add_parser("repository", help="write Triton's model repository")
    form = argparse.RawDescriptionHelpFormatter
    build = parser.add_subparsers(metavar="COMMAND", required=True).add_parser(
        "build", help="write or check it", description=_DESCRIPTION, epilog=_EXAMPLES, formatter_class=form
    )
    build.add_argument("--profile", choices=tuple(PROFILES), help="only this one (default: all)")
    build.add_argument(
        "--variants",
        help="comma-separated, of variants, detectors and text models, or 'all': all variants and detectors (default: "
        "MobileSAM at its sizes, and detectors)",
    )
    build.add_argument(
        "--output", type=Path, metavar="DIR", help=f"where to, a folder a profile (default {DEFAULT_FOLDER})"
    )
    build.add_argument(
        "--batching",
        choices=get_args(Batching),
        default="formed",
        help="formed: requests run as they come; bounded: and Triton limits its queue; dynamic: Triton merges requests "
        "of several gateways (default formed)",
    )
    build.add_argument(
        "--models",
        action="store_true",
        help="put the compiled graphs in as well (needs --output), those of installed detectors among them",
    )
    build.add_argument("--precision", help="of TensorRT plans, such as fp16")
    build.add_argument(
        "--compute-capability", metavar="X.Y", help="of the GPU that TensorRT plans are for, such as 8.9"
    )
    build.add_argument("--check", action="store_true", help="write nothing; fail when what is there differs")
    build.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write, or check."""
    chosen = [get_profile(options.profile)] if options.profile else list(PROFILES.values())
    profiles = [
        replace(profile, plan=options.precision) if options.precision and profile.backend == "tensorrt" else profile
        for profile in chosen
    ]
    specs, detectors = _chosen(options)
    batching = cast("Batching", options.batching)
    folder = options.output or DEFAULT_FOLDER
    if options.check:
        return _check(folder, all_files(profiles, specs, batching, detectors), profiles)
    if options.models and options.output is None:
        raise InvalidArgument("--output", "--models needs a folder outside of the checkout, where graphs don't belong")
    models = _models(profiles, specs, detectors, options) if options.models else {}
    files = all_files(profiles, specs, batching, detectors)
    write_files(folder, files)
    place_models(folder, models)
    print(f"{len(files)} files and {len(models)} compiled graphs written to {folder}")
    return 0


def _chosen(options: argparse.Namespace) -> tuple[list[NetworkSpec], list[DetectorSpec]]:
    """Those that are named, or all; by default the variants that share MobileSAM's weights. With all and by default,
    the detectors that are installed where graphs are wanted, too, else those whose input size doesn't depend on what is
    installed. Raises NotFound and NotInstalled."""
    if not options.variants or options.variants == "all":
        every = bool(options.variants)
        variants: list[NetworkSpec] = [
            spec for spec in VARIANTS.values() if every or spec.weights_name == DEFAULT_VARIANT
        ]
        if options.models:
            return variants, [found.spec for found in installed_detectors()]
        return variants, [spec for spec in DETECTORS.values() if spec.input_size]
    names = [name.strip() for name in options.variants.split(",")]
    detectors = [DETECTORS[name] for name in names if name in DETECTORS]
    return (
        [TEXT_MODELS.get(name) or get_variant(name) for name in names if name not in DETECTORS],
        [spec if spec.input_size else require_detector(spec).spec for spec in detectors],
    )


def _check(folder: Path, files: Mapping[str, str], profiles: Sequence[Profile]) -> int:
    within = "" if len(profiles) > 1 else f"{profiles[0].name}/"
    differences = compare(folder, files, within)
    if not differences:
        print(f"{folder} is what the specs say")
        return 0
    for problem, paths in _problems(differences).items():
        for path in paths:
            print(f"{problem}: {folder / path}", file=sys.stderr)
    print("bring it up to date with: samgate repository build", file=sys.stderr)
    return 1


def _problems(differences: Differences) -> dict[str, tuple[str, ...]]:
    return {
        "differs": differences.differing,
        "missing": differences.missing,
        "superfluous": differences.superfluous,
    }


def _models(
    profiles: Sequence[Profile],
    specs: Sequence[NetworkSpec],
    detectors: Sequence[DetectorSpec],
    options: argparse.Namespace,
) -> dict[str, Path]:
    models = {
        f"{profile.name}/{model_path(profile, spec.name, graph)}": files[graph]
        for profile in profiles
        for spec in specs
        for files in (_graphs(profile, spec, options),)
        for graph in served_graphs(spec, profile)
    }
    return models | {
        f"{profile.name}/{model_path(profile, spec.name, 'detector')}": _detector(profile, spec, options)
        for profile in profiles
        for spec in detectors
    }


def _graphs(profile: Profile, spec: NetworkSpec, options: argparse.Namespace) -> GraphFiles:
    if profile.backend != "tensorrt":
        return ensure_graphs(spec, _report)
    _require_gpu(options)
    from samgate.compile.artifacts import installed_artifact

    return installed_artifact(spec, "tensorrt", plan_of(spec, profile), options.compute_capability).files


def _detector(profile: Profile, spec: DetectorSpec, options: argparse.Namespace) -> Path:
    if profile.backend != "tensorrt":
        return ensure_detector(spec, _report).file
    _require_gpu(options)
    from samgate.compile.detector_pipeline import installed_detector_plan

    return installed_detector_plan(spec, "tensorrt", detector_plan(profile), options.compute_capability)


def _require_gpu(options: argparse.Namespace) -> None:
    if options.precision is None or options.compute_capability is None:
        raise InvalidArgument(
            "--models", "TensorRT plans are made for one precision and GPU: give --precision and --compute-capability"
        )


def _report(message: str) -> None:
    print(f"samgate: {message} …", file=sys.stderr, flush=True)
