"""What Locust's processes tell each other of a run, by the names of the messages."""

from __future__ import annotations

PLAN = "samgate_plan"
"""The leader to all: the plan's fields."""
READY = "samgate_ready"
"""A user to the leader: its process, its number there, its source."""
GO = "samgate_go"
"""The leader to a process: which part each of its users sends, and how many parts each source has."""
OUTCOMES = "samgate_outcomes"
"""A user to the leader, once a second: what became of requests; with the last of them, how the user itself fared."""
ABORT = "samgate_abort"
"""A user to the leader: why it can't begin."""
