"""Reads YAML that people write: every value of its type and within its bounds, nothing left over."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import yaml

from samgate.errors import InvalidArgument, SamgateError

MAX_BYTES = 2**20
_SHOWN = 60
_REQUIRED: Any = object()


class _Loader(yaml.SafeLoader):
    """Safe loading that refuses a key which is there twice: one of the two would silently be ignored."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.MarkedYAMLError(problem=f"{key.value!r} is there twice", problem_mark=key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


class Section:
    """A mapping at ``path`` in a file. All of its fields have to be read: :meth:`end` refuses what is left."""

    def __init__(self, value: Any, path: str) -> None:
        if not isinstance(value, dict):
            raise refuse(path, value, "a mapping")
        self._values: dict[Any, Any] = dict(value)
        self.path = path

    def end(self) -> None:
        """Raises InvalidArgument for a field that nobody has read."""
        if self._values:
            raise InvalidArgument(self.path, f"unknown field {shown(min(self._values, key=str))}")

    def has(self, name: str) -> bool:
        """Whether the field ``name`` is there and hasn't been read."""
        return name in self._values

    def peek(self, name: str) -> Any:
        """The field ``name``, which stays to be read; None when it isn't there."""
        return self._values.get(name)

    def where(self, name: str) -> str:
        """The path of the field ``name``."""
        return f"{self.path}{'' if self.path.endswith(' ') else '.'}{name}"

    def raw(self, name: str, default: Any = _REQUIRED) -> Any:
        """The field as it is."""
        if name not in self._values:
            if default is _REQUIRED:
                raise InvalidArgument(self.where(name), "is missing")
            return default
        return self._values.pop(name)

    def number(self, name: str, low: float, high: float, default: float = _REQUIRED) -> float:
        """A finite number from ``low`` to ``high``."""
        return number(self.raw(name, default), self.where(name), low, high)

    def whole(self, name: str, low: int, high: int, default: int = _REQUIRED) -> int:
        """An integer from ``low`` to ``high``."""
        return whole(self.raw(name, default), self.where(name), low, high)

    def flag(self, name: str, default: bool = _REQUIRED) -> bool:
        """True or false."""
        value = self.raw(name, default)
        if not isinstance(value, bool):
            raise refuse(self.where(name), value, "true or false")
        return value

    def choice(self, name: str, options: Sequence[str], default: str = _REQUIRED) -> str:
        """One of ``options``."""
        value = self.raw(name, default)
        if not isinstance(value, str) or value not in options:
            raise refuse(self.where(name), value, f"one of {', '.join(options)}")
        return value

    def text(self, name: str, default: str = _REQUIRED) -> str:
        """Printable text of 1 to 200 characters."""
        return text(self.raw(name, default), self.where(name))

    def items(self, name: str, most: int, default: list[Any] = _REQUIRED) -> list[tuple[str, Any]]:
        """A list of at most ``most`` things, each with its path."""
        value = self.raw(name, default)
        if not isinstance(value, list) or len(value) > most:
            raise refuse(self.where(name), value, f"a list of at most {most}")
        return [(f"{self.where(name)}[{place}]", item) for place, item in enumerate(value)]

    def section(self, name: str) -> Section:
        """A mapping."""
        return Section(self.raw(name), self.where(name))


def number(value: Any, path: str, low: float, high: float) -> float:
    """``value`` if it is a finite number from ``low`` to ``high``. Raises InvalidArgument."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise refuse(path, value, f"a number from {low:g} to {high:g}")
    return float(value)


def whole(value: Any, path: str, low: int, high: int) -> int:
    """``value`` if it is an integer from ``low`` to ``high``. Raises InvalidArgument."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise refuse(path, value, f"a whole number from {low} to {high}")
    return value


def text(value: Any, path: str) -> str:
    """``value`` if it is printable text of 1 to 200 characters. Raises InvalidArgument."""
    if not isinstance(value, str) or not 1 <= len(value) <= 200 or not value.isprintable():
        raise refuse(path, value, "printable text of 1 to 200 characters")
    return value


def refuse(path: str, value: Any, limit: str) -> InvalidArgument:
    """The error for the field at ``path`` whose ``value`` isn't what it must be."""
    return InvalidArgument(path, f"is {shown(value)}; it must be {limit}")


def shown(value: Any) -> str:
    """``value`` for a message: short, on one line, whatever it is."""
    if isinstance(value, dict | list):
        return f"a {'list' if isinstance(value, list) else 'mapping'} of {len(value)}"
    found = ascii(value)
    return found if len(found) <= _SHOWN else f"{found[:_SHOWN]}…"


def read_yaml(path: Path) -> Section:
    """The mapping in a file. Raises SamgateError when it can't be read, InvalidArgument when it isn't YAML."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise SamgateError(f"{path} can't be read: {error.strerror}") from error
    return parse_yaml(data, path.name)


def parse_yaml(data: bytes, name: str) -> Section:
    """The mapping that ``data`` holds. Raises InvalidArgument, with ``name`` for the file's."""
    if len(data) > MAX_BYTES:
        raise InvalidArgument(name, f"has more than {MAX_BYTES} bytes, the most that it may have")
    try:
        content = yaml.load(data, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError, TypeError) as error:
        raise InvalidArgument(name, f"is not YAML: {' '.join(str(error).split())}") from None
    return Section(content, f"{name}: ")
