"""Dataclasses → protobuf's text format, the same bytes for the same values."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

_INDENT = "  "


def write_pbtxt(message: object) -> str:
    """``message``, a dataclass whose fields are named as the protocol's, as text.

    Fields keep their order, maps are sorted by key. None, empty strings and empty collections are left out; numbers and
    booleans never are, so that the file says what holds.

    Raises:
        TypeError: a value is of a type that the text format has no form for.
    """
    return "\n".join(_message(message, "")) + "\n"


def _message(message: Any, indent: str) -> Iterator[str]:
    for item in fields(message):
        yield from _field(item.name, getattr(message, item.name), indent)


def _field(name: str, value: Any, indent: str) -> Iterator[str]:
    if value is None or value == "":
        return
    if isinstance(value, Mapping):
        for key in sorted(value):
            yield f"{indent}{name} {{"
            yield from _field("key", key, indent + _INDENT)
            yield from _field("value", value[key], indent + _INDENT)
            yield f"{indent}}}"
    elif isinstance(value, tuple):
        if all(isinstance(one, int | str) for one in value):
            if value:
                yield f"{indent}{name}: [{', '.join(_scalar(one) for one in value)}]"
            return
        for one in value:
            yield from _field(name, one, indent)
    elif is_dataclass(value):
        yield f"{indent}{name} {{"
        yield from _message(value, indent + _INDENT)
        yield f"{indent}}}"
    else:
        yield f"{indent}{name}: {_scalar(value)}"


def _scalar(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case Enum():
            return str(value.value)
        case int():
            return str(value)
        case str():
            # The text format's strings are UTF-8, and every escape of JSON's is one of its own.
            return json.dumps(value, ensure_ascii=False)
        case _:
            raise TypeError(f"{value!r} has no text format")
