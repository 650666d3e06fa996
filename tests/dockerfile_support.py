"""The Dockerfiles in deploy/docker, read."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

DOCKER = Path(__file__).resolve().parents[1] / "deploy" / "docker"
DOCKERFILES = tuple(sorted(DOCKER.glob("*.Dockerfile")))

_ARGUMENT = re.compile(r"\$\{(\w+)\}")


@dataclass(frozen=True)
class Instruction:
    """One, such as RUN: its ``flags`` (--from=… and the like), in order, and the ``text`` after them."""

    name: str
    flags: tuple[tuple[str, str], ...]
    text: str

    def flag(self, name: str) -> str | None:
        """The value of the first flag of that name."""
        return next((value for key, value in self.flags if key == name), None)


@dataclass
class Stage:
    """One: what it is FROM, arguments filled in, and its instructions."""

    name: str
    base: str
    instructions: list[Instruction] = field(default_factory=list)

    def of(self, name: str) -> list[Instruction]:
        """Its instructions of that name."""
        return [one for one in self.instructions if one.name == name]

    @property
    def user(self) -> str | None:
        """Who it ends as, where it says so."""
        users = self.of("USER")
        return users[-1].text if users else None

    @property
    def environment(self) -> dict[str, str]:
        """What its ENV instructions set."""
        pairs = (part.partition("=") for one in self.of("ENV") for part in shlex.split(one.text))
        return {name: value for name, _, value in pairs}


def read(path: Path) -> tuple[dict[str, str], dict[str, Stage]]:
    """The global arguments with their defaults, and the stages by name, of the Dockerfile ``path``."""
    arguments: dict[str, str] = {}
    stages: dict[str, Stage] = {}
    stage: Stage | None = None
    for line in _lines(path.read_text()):
        instruction = _instruction(line)
        if instruction.name == "FROM":
            base, _, name = instruction.text.split()
            stage = stages[name] = Stage(name, _filled(base, arguments))
        elif stage is None:
            assert instruction.name == "ARG", line
            key, _, value = instruction.text.partition("=")
            arguments[key] = value
        else:
            stage.instructions.append(instruction)
    return arguments, stages


def _lines(text: str) -> list[str]:
    kept = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    return [line.strip() for line in "\n".join(kept).replace("\\\n", " ").splitlines() if line.strip()]


def _instruction(line: str) -> Instruction:
    name, _, rest = line.partition(" ")
    flags = []
    rest = rest.strip()
    while match := re.match(r"--([a-z]+)=(\S+)\s+", rest):
        flags.append((match[1], match[2]))
        rest = rest[match.end() :]
    return Instruction(name, tuple(flags), rest)


def _filled(text: str, arguments: Mapping[str, str]) -> str:
    return _ARGUMENT.sub(lambda match: arguments[match[1]], text)
