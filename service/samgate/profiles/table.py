"""A profile for a terminal."""

from __future__ import annotations

from rich.table import Table

from samgate.profiles.front import COLD_MEGAPIXELS, cold_s
from samgate.profiles.stored import StoredProfile


def as_table(profile: StoredProfile) -> Table:
    """A row a point, milliseconds at the 95th percentile; below, where and how they were measured.

    ``fixed + each`` are the decoder's line by prompts; ``off by`` is how far measured percentiles are at most from that
    line and the encoder's.
    """
    device = profile.device
    table = Table(
        title="operating points: ms at the 95th percentile", caption=_caption(profile), caption_justify="left"
    )
    table.add_column("point", no_wrap=True)
    cold = f"cold, {COLD_MEGAPIXELS:g} MP"
    for column in ("encode 1", "decode 1 / all", "fixed + each", "off by", cold, "mIoU box / point"):
        table.add_column(column, justify="right")
    table.add_column("figures")
    for record in profile.records:
        point = record.point
        table.add_row(
            point.name,
            _ms(point.encode(1)),
            f"{_ms(point.decode(1))} / {_ms(point.decode(point.max_prompts))} ({point.max_prompts})",
            f"{_ms(point.decode.fixed_s)} + {_ms(point.decode.each_s)}",
            _ms(max(point.encode.residual_s, point.decode.residual_s)),
            _ms(cold_s(device, point)),
            f"{point.accuracy['box']:.4f} / {point.accuracy['point']:.4f}",
            record.origin.partition(":")[0],
        )
    return table


def _caption(profile: StoredProfile) -> str:
    lines = [f"overhead of a request {_ms(profile.overhead_s)} ms ({profile.overhead_origin.partition(':')[0]})"]
    if profile.fingerprint is not None:
        lines.append(f"{profile.fingerprint.sentence()}; {profile.created}")
        lines += [f"accuracy: {origin}" for origin in dict.fromkeys(profile.accuracy_origins.values())]
    else:
        lines.append("published figures, for simulations; --json - tells where each is from and what is assumed")
    return "\n".join(lines)


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.1f}"
