"""Structured logs: an event and its fields, as text for people or as one JSON object a line for machines."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

from samgate.errors import InvalidArgument

_FIELDS = "samgate_fields"
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


def log(logger: logging.Logger, level: int, event: str, **fields: object) -> None:
    """Log ``event`` with ``fields``; those that are None are left out."""
    given = {key: value for key, value in fields.items() if value is not None}
    logger.log(level, event, extra={_FIELDS: given})


class TextFormatter(logging.Formatter):
    """``12:00:01 INFO  segment code=OK total_ms=214``."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and the traceback if there is one."""
        time = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        fields = " ".join(f"{key}={_text(value)}" for key, value in getattr(record, _FIELDS, {}).items())
        line = f"{time} {record.levelname:<7} {record.getMessage()} {fields}".rstrip()
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """``{"time": …, "level": "info", "event": "segment", "code": "OK", …}``."""

    def format(self, record: logging.LogRecord) -> str:
        """One JSON object."""
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **getattr(record, _FIELDS, {}),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str, ensure_ascii=False)


def configure(level: str, form: str) -> None:
    """Send all logs to standard error. Raises InvalidArgument for an unknown level or form."""
    if level.upper() not in _LEVELS:
        raise InvalidArgument("log_level", f"{level!r} is none of {', '.join(_LEVELS)}")
    if form not in ("text", "json"):
        raise InvalidArgument("log_format", f"{form!r} is neither text nor json")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1 else f"{value:.1f}"
    text = str(value)
    # What clients say is in here, too: it must neither begin a line of its own nor speak to a terminal.
    plain = text.isprintable() and not any(c.isspace() or c == '"' for c in text)
    return text if text and plain else json.dumps(text)
