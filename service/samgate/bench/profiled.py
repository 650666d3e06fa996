"""The profile that a benchmark's servers go by."""

from __future__ import annotations

import asyncio

from samgate.api.server import load_models, load_profile
from samgate.bench.context import Context
from samgate.config import settings_from
from samgate.scheduling.profile import DeviceProfile


def served_profile(context: Context) -> DeviceProfile:
    """The installed profile of what ``context`` serves, measured quickly where there is none."""
    settings = settings_from(
        overrides={
            "variants": context.variant,
            "engine.precision": context.precision,
            "engine.name": context.engine,
            "engine.threads": context.all_threads,
        }
    )

    async def load() -> DeviceProfile:
        models = load_models(settings, context.console.print)
        try:
            return await load_profile(settings, models, context.console.print)
        finally:
            for model in models:
                await model.engine.close()

    return asyncio.run(load())
