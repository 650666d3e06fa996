"""Log lines stay lines, whatever clients call themselves."""

from __future__ import annotations

import json
import logging

import pytest

from samgate.logs import JsonFormatter, TextFormatter


def record(**fields: object) -> logging.LogRecord:
    made = logging.LogRecord("samgate.calls", logging.INFO, __file__, 1, "Segment", (), None)
    made.samgate_fields = fields
    return made


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("studio", "studio"),
        ("über", "über"),
        ("two words", '"two words"'),
        ("", '""'),
        (0.12345, "0.1235"),
        (214.04, "214.0"),
        ("a\n12:00:00 ERROR   forged", r'"a\n12:00:00 ERROR   forged"'),
        ("\x1b[2Jcleared", r'"\u001b[2Jcleared"'),
        ("\u202egnp.exe", r'"\u202egnp.exe"'),
    ],
)
def test_values_are_shown_without_doing_anything(value: object, shown: str) -> None:
    line = TextFormatter().format(record(client=value))
    assert line.endswith(f"INFO    Segment client={shown}")
    assert len(line.splitlines()) == 1


def test_json_is_an_object_a_line() -> None:
    line = JsonFormatter().format(record(client="a\nb\x1b", code="OK"))
    assert len(line.splitlines()) == 1
    told = json.loads(line)
    assert (told["event"], told["client"], told["code"]) == ("Segment", "a\nb\x1b", "OK")
