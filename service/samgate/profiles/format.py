"""Profiles as JSON: what a file holds, and every field of it checked. Pure."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from samgate.errors import ProfileError
from samgate.profiles.fields import Fields
from samgate.profiles.fingerprint import Fingerprint
from samgate.profiles.stored import MEASURED, PUBLISHED, QUICK, PointRecord, StoredProfile
from samgate.scheduling.profile import PROMPT_KINDS, Line, OperatingPoint

SCHEMA = 2
MAX_BYTES = 2**20
_LINES = ("encode", "decode", "survivors", "prepare", "finish")
_MAX_POINTS = 256
_MAX_SECONDS = 3600.0
_NAME, _TEXT = 64, 1000


def parse_profile(data: bytes, name: str) -> StoredProfile:
    """The profile that a file holds as ``data``. Raises ProfileError that names file (``name``), field, value and
    limit."""
    if len(data) > MAX_BYTES:
        raise ProfileError(f"{name} has more than {MAX_BYTES} bytes, the most that a profile may have")
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ProfileError(f"{name} is not JSON: {error}") from None
    file = Fields(content, name, f"{name}: ")
    schema = file.whole("schema", 1, 2**31)
    if schema != SCHEMA:
        raise ProfileError(f"{name} has schema {schema}, this samgate reads {SCHEMA}: run `samgate profile`")
    machine = file.fields_or_none("fingerprint")
    overhead = file.fields("overhead")
    profile = StoredProfile(
        fingerprint=None if machine is None else _fingerprint(machine),
        created=file.day("created"),
        records=tuple(
            _record(Fields(entry, f"{name}: points[{place}]"))
            for place, entry in enumerate(file.array("points", _MAX_POINTS))
        ),
        overhead_s=overhead.number("seconds", 0, 60),
        overhead_origin=_origin(overhead),
        instances=file.whole("instances", 1, 1024),
        shared=file.flag("shared"),
    )
    overhead.end()
    file.end()
    _check_whole(profile, name)
    return profile


def profile_json(profile: StoredProfile) -> dict[str, Any]:
    """What a file holds, as :func:`parse_profile` takes it. Times are in seconds."""
    return {
        "schema": SCHEMA,
        "created": profile.created,
        "fingerprint": None if profile.fingerprint is None else asdict(profile.fingerprint),
        "overhead": {"seconds": profile.overhead_s, "origin": profile.overhead_origin},
        "instances": profile.instances,
        "shared": profile.shared,
        "points": [_entry(record) for record in profile.records],
    }


def _fingerprint(fields: Fields) -> Fingerprint:
    found = Fingerprint(
        cpu=fields.text("cpu", _TEXT),
        cores=fields.whole("cores", 1, 65536),
        features=fields.texts("features", 64, _NAME),
        engine=fields.text("engine", _NAME),
        runtime=fields.text("runtime", _TEXT),
        threads=fields.whole("threads", 1, 65536),
        encode_batch=fields.whole("encode_batch", 0, 65536),
        decode_prompts=fields.whole("decode_prompts", 0, 65536),
    )
    fields.end()
    return found


def _record(fields: Fields) -> PointRecord:
    lines = {name: _line(fields.fields(name)) for name in _LINES}
    for name in ("encode", "decode"):
        if lines[name](1) <= 0:
            raise fields.refuse(name, lines[name](1), "a line that takes time: fixed_s + each_s above 0")
    accuracy = fields.fields("accuracy")
    point = OperatingPoint(
        variant=_identifier(fields, "variant"),
        precision=_identifier(fields, "precision"),
        engine=fields.text("engine", _NAME),
        encode=lines["encode"],
        decode=lines["decode"],
        survivors=lines["survivors"],
        prepare=lines["prepare"],
        finish=lines["finish"],
        accuracy={kind: accuracy.number(kind, 0, 1) for kind in PROMPT_KINDS},
        max_images=fields.whole("max_images", 1, 65536),
        decode_images=fields.whole("decode_images", 1, 65536),
        max_prompts=fields.whole("max_prompts", 1, 65536),
    )
    accuracy.end()
    record = PointRecord(
        point=point,
        origin=_origin(fields),
        created=fields.day("created"),
        graphs=fields.text("graphs", _NAME, least=0),
        accuracy_origin=fields.text("accuracy_origin", _TEXT),
    )
    fields.end()
    return record


def _identifier(fields: Fields, name: str) -> str:
    value = fields.text(name, _NAME)
    if not all(one.isascii() and (one.isalnum() or one in "-._") for one in value):
        raise fields.refuse(name, value, "letters, digits, '-', '.' and '_'")
    return value


def _line(fields: Fields) -> Line:
    line = Line(
        fixed_s=fields.number("fixed_s", 0, _MAX_SECONDS),
        each_s=fields.number("each_s", 0, _MAX_SECONDS),
        residual_s=fields.number("residual_s", 0, _MAX_SECONDS),
        median_ratio=fields.number("median_ratio", 0, 1),
    )
    fields.end()
    return line


def _origin(fields: Fields) -> str:
    value = fields.text("origin", _TEXT)
    if value not in (MEASURED, QUICK) and not value.startswith(PUBLISHED):
        raise fields.refuse("origin", value, f"'{MEASURED}', '{QUICK}' or '{PUBLISHED}…'")
    return value


def _check_whole(profile: StoredProfile, name: str) -> None:
    names = [record.point.name for record in profile.records]
    twice = next((one for one in names if names.count(one) > 1), None)
    if twice is not None:
        raise ProfileError(f"{name}: points has {twice} twice")
    published = [record.origin.startswith(PUBLISHED) for record in profile.records]
    if any(published) and profile.fingerprint is not None:
        raise ProfileError(f"{name}: points[{published.index(True)}].origin is published, but there is a fingerprint")
    if not all(published) and profile.fingerprint is None:
        raise ProfileError(f"{name}: fingerprint is null, which is for published figures alone")


def _entry(record: PointRecord) -> dict[str, Any]:
    point = record.point
    return {
        **{name: getattr(point, name) for name in ("variant", "precision", "engine")},
        "origin": record.origin,
        "created": record.created,
        "graphs": record.graphs,
        "max_images": point.max_images,
        "decode_images": point.decode_images,
        "max_prompts": point.max_prompts,
        **{name: asdict(getattr(point, name)) for name in _LINES},
        "accuracy": {kind: point.accuracy[kind] for kind in PROMPT_KINDS},
        "accuracy_origin": record.accuracy_origin,
    }
