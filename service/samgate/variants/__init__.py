"""The systems samgate knows, by name."""

from __future__ import annotations

from samgate.errors import NotFound
from samgate.variants import mobilesam, mobilesam_smaller
from samgate.variants.spec import VariantSpec

VARIANTS: dict[str, VariantSpec] = {
    spec.name: spec for spec in (mobilesam.SPEC, mobilesam_smaller.SPEC_768, mobilesam_smaller.SPEC_512)
}
DEFAULT_VARIANT = mobilesam.SPEC.name


def get_variant(name: str) -> VariantSpec:
    """The spec called ``name``. Raises :class:`NotFound` that lists the names there are."""
    try:
        return VARIANTS[name]
    except KeyError:
        raise NotFound(f"variant {name!r} is unknown; known: {', '.join(sorted(VARIANTS))}") from None
