"""The systems samgate knows, by name: the ``SPECS`` of the modules in here."""

from __future__ import annotations

import importlib
import pkgutil

from samgate.errors import NotFound
from samgate.variants.spec import VariantSpec


def _found() -> dict[str, VariantSpec]:
    modules = (importlib.import_module(f"{__name__}.{one.name}") for one in pkgutil.iter_modules(__path__))
    return {spec.name: spec for module in modules for spec in getattr(module, "SPECS", ())}


VARIANTS: dict[str, VariantSpec] = _found()
DEFAULT_VARIANT = "mobilesam"


def get_variant(name: str) -> VariantSpec:
    """The spec called ``name``. Raises :class:`NotFound` that lists the names there are."""
    try:
        return VARIANTS[name]
    except KeyError:
        raise NotFound(f"variant {name!r} is unknown; known: {', '.join(sorted(VARIANTS))}") from None
