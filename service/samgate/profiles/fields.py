"""Reads fields of files that anybody may have written: each has to be of its type and within its bounds."""

from __future__ import annotations

from datetime import date
from typing import Any

from samgate.errors import ProfileError

_SHOWN = 60


class Fields:
    """A JSON object at ``where`` in a file. All of its fields have to be read: :meth:`end` refuses what is left.

    In messages the names of fields come after ``prefix``, which is ``where`` and a dot if it isn't given.
    """

    def __init__(self, value: Any, where: str, prefix: str = "") -> None:
        if not isinstance(value, dict):
            raise ProfileError(f"{where} is {_shown(value)}; it must be an object")
        self._values: dict[str, Any] = dict(value)
        self._where, self._prefix = where, prefix or f"{where}."

    def end(self) -> None:
        """Raises ProfileError for a field that nobody has read."""
        if self._values:
            raise ProfileError(f"{self._where} has the unknown field {_shown(min(self._values, key=str))}")

    def refuse(self, name: str, value: Any, limit: str) -> ProfileError:
        """The error for the field ``name``, whose ``value`` isn't what it must be."""
        return ProfileError(f"{self._path(name)} is {_shown(value)}; it must be {limit}")

    def number(self, name: str, low: float, high: float) -> float:
        """A finite number from ``low`` to ``high``."""
        value = self._take(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise self.refuse(name, value, f"a number from {low:g} to {high:g}")
        return float(value)

    def whole(self, name: str, low: int, high: int) -> int:
        """An integer from ``low`` to ``high``."""
        value = self._take(name)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.refuse(name, value, f"a whole number from {low} to {high}")
        return value

    def flag(self, name: str) -> bool:
        """True or false."""
        value = self._take(name)
        if not isinstance(value, bool):
            raise self.refuse(name, value, "true or false")
        return value

    def text(self, name: str, most: int, *, least: int = 1) -> str:
        """Printable text of ``least`` to ``most`` characters: it is shown on terminals."""
        return self._text(name, self._take(name), most, least)

    def texts(self, name: str, most: int, length: int) -> tuple[str, ...]:
        """At most ``most`` texts of at most ``length`` characters."""
        values = self.array(name, most)
        return tuple(self._text(f"{name}[{place}]", value, length, 1) for place, value in enumerate(values))

    def day(self, name: str) -> str:
        """A date, year-month-day."""
        value = self.text(name, 10)
        try:
            return date.fromisoformat(value).isoformat()
        except ValueError:
            raise self.refuse(name, value, "a date as 2026-01-31") from None

    def array(self, name: str, most: int) -> list[Any]:
        """A list of at most ``most`` things."""
        value = self._take(name)
        if not isinstance(value, list) or len(value) > most:
            raise self.refuse(name, value, f"a list of at most {most}")
        return value

    def fields(self, name: str) -> Fields:
        """An object."""
        return Fields(self._take(name), self._path(name))

    def fields_or_none(self, name: str) -> Fields | None:
        """An object, or null."""
        value = self._take(name)
        return None if value is None else Fields(value, self._path(name))

    def _take(self, name: str) -> Any:
        if name not in self._values:
            raise ProfileError(f"{self._path(name)} is missing")
        return self._values.pop(name)

    def _text(self, name: str, value: Any, most: int, least: int) -> str:
        if not isinstance(value, str) or not least <= len(value) <= most or not value.isprintable():
            raise self.refuse(name, value, f"printable text of {least} to {most} characters")
        return value

    def _path(self, name: str) -> str:
        return f"{self._prefix}{name}"


def _shown(value: Any) -> str:
    if isinstance(value, dict | list):
        return f"{'a list' if isinstance(value, list) else 'an object'} of {len(value)}"
    text = ascii(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
