"""The gateway's images without a container engine: each stage's commands in a clean root folder, then the gateway as a
pod runs it – another user, no capabilities, a root that can't be written, the chart's environment – and `helm test`.

    make test-images ARGS="--weights DIR"      as root; DIR has mobilesam.pt, or what else `samgate pull --from` takes

Stands in for the base image: Debian of the same release with its own Python of the same minor version, by debootstrap.
So this shows that commands work and what their results need, and nothing about the base image or the builder.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from chart_support import gateway
from dockerfile_support import DOCKER, Instruction, Stage, read
from helm_support import CHART, ROOT, containers, environment, of_kind, rendered

DOCKERFILE = DOCKER / "gateway.Dockerfile"
BASE_PACKAGES = "python3,python3-venv,python3-pip,ca-certificates"
READY = re.compile(r"samgate ready: .* on (?P<target>\S+), metrics on ")
STEP_TIMEOUT_S = 1800
START_TIMEOUT_S = 300
STOP_TIMEOUT_S = 60
PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"

# As a container of the chart's has it.
CONFINED = (
    *("setpriv", "--reuid", "1000", "--regid", "1000", "--clear-groups"),
    *("--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"),
)


@dataclass
class Root:
    """A folder that commands see as their root; ``variables`` and ``user`` are as the instructions so far left them."""

    folder: Path
    variables: dict[str, str]
    user: str = "0:0"
    mounts: list[tuple[Path, str]] = field(default_factory=list)

    def command(
        self, arguments: Sequence[str], *, read_only: bool = False, extra: Mapping[str, str] | None = None
    ) -> list[str]:
        """What runs ``arguments`` in there, in namespaces of its own that end with it."""
        lines = [f"mount --bind {self.folder} {self.folder}"]
        if read_only:
            lines += [f"mount -o remount,bind,ro {self.folder}", f"mount -t tmpfs tmpfs {self.folder}/tmp"]
        lines += [f"mount -t proc proc {self.folder}/proc", f"mount --rbind /dev {self.folder}/dev"]
        lines += [f"mount --bind {shlex.quote(str(source))} {self.folder}{place}" for source, place in self.mounts]
        pairs = [f"{name}={value}" for name, value in (self.variables | dict(extra or {})).items()]
        who = (
            CONFINED
            if read_only
            else ("setpriv", "--reuid", self.user.split(":")[0], "--regid", self.user.split(":")[1], "--clear-groups")
        )
        inside = ["chroot", str(self.folder), *who, "env", "-i", *pairs, *arguments]
        script = " && ".join([*lines, f"exec {shlex.join(inside)}"])
        return ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script]


def main() -> int:
    """Every stage, then the check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, help="a folder in the place of the stage `weights` (default: none)")
    parser.add_argument(
        "--work", type=Path, default=ROOT / ".tools" / "images", help="where root folders go (default %(default)s)"
    )
    parser.add_argument("--reuse", action="store_true", help="only try the gateway, in the folder of an earlier run")
    options = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("this needs root, for chroot and mounts")
    if shutil.which("debootstrap") is None:
        sys.exit("this needs debootstrap: apt-get install debootstrap")
    options.work.mkdir(parents=True, exist_ok=True)
    arguments, stages = read(DOCKERFILE)
    roots: dict[str, Root] = {}
    for stage in stages.values():
        if stage.base == "scratch":
            continue
        began = time.monotonic()
        roots[stage.name] = build(stage, roots, options)
        print(
            f"{stage.name:10} {size_mib(roots[stage.name].folder):6} MiB  {time.monotonic() - began:4.0f} s", flush=True
        )
    base = size_mib(roots["base"].folder)
    on_top = size_mib(roots["gateway"].folder) - base
    print(f"the gateway has {on_top} MiB on top of what stands in for {arguments['PYTHON_IMAGE']}")
    try_gateway(roots["gateway"], options.work)
    try_models(roots["compile"], roots["gateway"], options.work)
    return 0


def size_mib(folder: Path) -> int:
    """Of all that is in it."""
    shown = subprocess.run(["du", "-sm", folder], capture_output=True, text=True, check=True, timeout=300)
    return int(shown.stdout.split()[0])


def build(stage: Stage, roots: Mapping[str, Root], options: argparse.Namespace) -> Root:
    """The root folder that the instructions of ``stage`` make, made anew unless it may be used again."""
    folder = options.work / stage.name
    parent = roots[stage.base] if stage.base in roots else Root(clean_root(options.work), {"PATH": PATH})
    root = Root(folder, dict(parent.variables), parent.user)
    if not options.reuse:
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run(["cp", "-a", "--reflink=auto", parent.folder, folder], check=True, timeout=STEP_TIMEOUT_S)
    for instruction in stage.instructions:
        if not options.reuse or instruction.name in ("ENV", "ARG", "USER"):
            apply(instruction, root, roots, options.weights)
    return root


def clean_root(work: Path) -> Path:
    """Debian and its Python, once."""
    folder = work / "debian"
    if not (folder / "usr/bin/python3").exists():
        shutil.rmtree(folder, ignore_errors=True)
        shown = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Release: bookworm"]
        listed = subprocess.run(shown, capture_output=True, text=True, check=True, timeout=60).stdout.split()
        command = [
            "debootstrap",
            "--variant=minbase",
            f"--include={BASE_PACKAGES}",
            "bookworm",
            str(folder),
            *listed[:1],
        ]
        subprocess.run(command, check=True, timeout=STEP_TIMEOUT_S, stdout=subprocess.DEVNULL)
    return folder


def apply(one: Instruction, root: Root, roots: Mapping[str, Root], weights: Path | None) -> None:
    match one.name:
        case "ENV":
            for pair in shlex.split(one.text):
                name, _, value = pair.partition("=")
                root.variables[name] = value.replace("$PATH", root.variables["PATH"])
        case "ARG":
            name, _, value = one.text.partition("=")
            root.variables[name] = value
        case "USER":
            root.user = one.text
        case "COPY":
            copy(one, root, roots)
        case "RUN":
            run(one, root, weights)
        case "ENTRYPOINT" | "CMD" | "EXPOSE":
            pass
        case _:
            raise NotImplementedError(one.name)


def copy(one: Instruction, root: Root, roots: Mapping[str, Root]) -> None:
    source, place = one.text.split()
    target = root.folder / place.lstrip("/")
    if origin := one.flag("from"):
        found = roots[origin].folder / source.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        # A folder's content goes into one that is there.
        subprocess.run(["cp", "-a", "-T", found, target], check=True, timeout=STEP_TIMEOUT_S)
    elif source == ".":
        admitted = [
            line[1:] for line in (DOCKER / f"{DOCKERFILE.name}.dockerignore").read_text().splitlines() if line[0] == "!"
        ]
        for path in admitted:
            subprocess.run(["cp", "-a", "--parents", path, _made(target)], cwd=ROOT, check=True, timeout=60)
    else:
        shutil.copyfile(ROOT / source, _made(target.parent) / target.name)
    if owner := one.flag("chown"):
        subprocess.run(["chown", "-R", owner, target], check=True, timeout=60)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def run(one: Instruction, root: Root, weights: Path | None) -> None:
    mounts = dict(network_mounts())
    for key, value in one.flags:
        options = dict(pair.split("=") for pair in value.split(",")) if key == "mount" else {}
        if options.get("type") == "bind" and weights:
            mounts[weights.resolve()] = options["target"]
    (root.folder / "weights").mkdir(exist_ok=True)
    for source, place in mounts.items():
        target = root.folder / place.lstrip("/")
        if source.is_dir():
            _made(target)
        else:
            _made(target.parent)
            target.touch()
    root.mounts = list(mounts.items())
    # The builder's ways to packages, which Docker would have from the secret and the daemon's proxy.
    extra = {
        name: value for name, value in os.environ.items() if name.startswith("PIP_") or name.lower().endswith("_proxy")
    }
    subprocess.run(
        root.command(["sh", "-c", one.text], extra=extra), check=True, timeout=STEP_TIMEOUT_S, stdout=subprocess.DEVNULL
    )
    root.mounts = []


def network_mounts() -> Iterator[tuple[Path, str]]:
    """How names are found and packages fetched here, pip's configuration and local indexes it names included."""
    candidates = {"/etc/resolv.conf", "/etc/hosts", "/etc/pip.conf", "/etc/ssl/certs/ca-certificates.crt"}
    shown = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True, timeout=60
    )
    candidates |= {path.rstrip("'\"") for path in re.findall(r"(?<=[ '=/])/[\w/.-]+", shown.stdout)}
    for path in sorted(candidates):
        if Path(path).exists() and path.strip("/"):
            yield Path(path).resolve(), path


@contextmanager
def serving(root: Root, log: Path) -> Iterator[str]:
    """The gateway as the chart starts it, on free ports; its target."""
    given = environment(gateway(rendered()))
    for name in ("PORT", "HTTP_PORT", "ADMIN_PORT"):
        given[f"SAMGATE_{name}"] = "0"
    for name in ("HOST", "HTTP_HOST", "ADMIN_HOST"):
        given[f"SAMGATE_{name}"] = "127.0.0.1"
    command = root.command(["samgate", "serve"], read_only=True, extra=given)
    with (
        log.open("w") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True) as process,
    ):
        try:
            assert process.stdout is not None
            ready = READY.match(process.stdout.readline())
            if not ready:
                sys.exit(f"the gateway didn't start:\n{log.read_text()}")
            yield ready["target"]
            # As the kubelet does: SIGTERM to the first process of the container.
            os.kill(int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()), signal.SIGTERM)
            if process.wait(timeout=STOP_TIMEOUT_S):
                sys.exit(f"the gateway ended with {process.returncode}:\n{log.read_text()}")
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def try_gateway(root: Root, work: Path) -> None:
    """Models copied as by the chart's init container, then the service and its test, all confined."""
    with tempfile.TemporaryDirectory(dir=work) as scratch:
        home = _made(Path(scratch) / "home")
        os.chown(home, 1000, 1000)
        for place in ("home-of-samgate", "scripts", "test"):
            _made(root.folder / place)
        root.mounts = [(home, "/home-of-samgate"), (CHART / "files" / "scripts", "/scripts")]
        fetch = {"STORE": "/var/lib/samgate", "DESTINATION": "/home-of-samgate", "WAIT_SECONDS": "0"}
        subprocess.run(
            root.command(["sh", "/scripts/fetch-files.sh"], read_only=True, extra=fetch), check=True, timeout=120
        )
        root.mounts = [(home, "/var/lib/samgate"), (CHART / "files" / "test", "/test")]
        denied = subprocess.run(
            root.command(["touch", "/opt/written"], read_only=True),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if "Read-only file system" not in denied.stderr:
            sys.exit(f"the root can be written: {denied}")
        shown = root.command(["grep", "-E", "^(Uid|CapEff|NoNewPrivs)", "/proc/self/status"], read_only=True)
        subprocess.run(shown, check=True, timeout=60)
        began = time.monotonic()
        with serving(root, Path(scratch) / "log") as target:
            print(f"the gateway serves, after {time.monotonic() - began:.0f} s")
            check = root.command(["python3", "/test/check.py"], read_only=True, extra={"SERVER": target})
            subprocess.run(check, check=True, timeout=START_TIMEOUT_S)
        print("and ended when it was told to")


def try_models(compiling: Root, serving_root: Root, work: Path) -> None:
    """The Job's export into an empty store, and from that Triton's repository as pods write it, all confined."""
    with tempfile.TemporaryDirectory(dir=work) as scratch:
        store, repository = _made(Path(scratch) / "store"), _made(Path(scratch) / "repository")
        for folder in (store, repository):
            os.chown(folder, 1000, 1000)
        for root, places in ((compiling, ("store", "scripts")), (serving_root, ("home-of-samgate", "repository"))):
            for place in places:
                _made(root.folder / place)
        (job,) = (
            one
            for one in containers(of_kind(rendered(example="cpu-pvc"), "Job")["spec"]["template"]["spec"])
            if one["name"] == "export"
        )
        # Without the detector, which is in no image.
        given = environment(job) | {"MODELS": "mobilesam,mobilesam-512"}
        compiling.mounts = [(store, "/store"), (CHART / "files" / "scripts", "/scripts")]
        exported = compiling.command(job["command"], read_only=True, extra=given)
        subprocess.run(exported, check=True, timeout=STEP_TIMEOUT_S, stdout=subprocess.DEVNULL)
        home = store / Path(given["STORE"]).name
        triton = of_kind(rendered('variants=["mobilesam"]', example="triton-cpu"), "Deployment", "samgate-triton")
        (builder,) = (one for one in containers(triton["spec"]["template"]["spec"]) if one["name"] == "repository")
        serving_root.mounts = [(home, "/var/lib/samgate"), (repository, "/repository")]
        built = serving_root.command(["samgate", *builder["args"]], read_only=True)
        subprocess.run(built, check=True, timeout=120)


if __name__ == "__main__":
    sys.exit(main())
