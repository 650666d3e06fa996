"""Settings: defaults, environment, flags, and mistakes in them."""

from __future__ import annotations

import pytest

from samgate.config import Settings, settings_from
from samgate.errors import InvalidArgument


def test_flags_win_over_the_environment_which_wins_over_defaults() -> None:
    environment = {"SAMGATE_PORT": "6000", "SAMGATE_LIMITS_MAX_PIXELS": "1000", "SAMGATE_CACHE_TTL_S": "2.5"}
    settings = settings_from(environment, {"port": 7000, "host": None})
    assert (settings.port, settings.host) == (7000, Settings().host)
    assert (settings.limits.max_pixels, settings.cache.ttl_s) == (1000, 2.5)


@pytest.mark.parametrize(
    ("environment", "overrides", "named"),
    [
        ({"SAMGATE_PORT": "many"}, {}, "SAMGATE_PORT: 'many' is not of type int"),
        ({"SAMGATE_LIMITS_MAX_PROMPTS": "0"}, {}, "limits.max_prompts: must be at least 1"),
        ({}, {"drain_s": -1.0}, "drain_s: must not be negative, is -1.0"),
        ({}, {"cache.size": 3}, "cache.size: no such setting"),
    ],
)
def test_a_mistake_is_named(environment: dict[str, str], overrides: dict[str, object], named: str) -> None:
    with pytest.raises(InvalidArgument, match=named):
        settings_from(environment, overrides)
