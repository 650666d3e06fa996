"""Run with: locust -f loadtest/locustfile.py --headless SegAnyWarm --rate 10. See docs/load-tests.md."""

from __future__ import annotations

import sys
from pathlib import Path

# Locust puts this file's folder on the path, and not the one above it.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from loadtest.users import Mixed, OpenLoop, SegAnyCold, SegAnyWarm, SegEvery

__all__ = ["Mixed", "OpenLoop", "SegAnyCold", "SegAnyWarm", "SegEvery"]
