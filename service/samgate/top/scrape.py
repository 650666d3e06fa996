"""One look at a server's metrics."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

from samgate.errors import Unavailable

_TIMEOUT_S = 5.0
_MOST_BYTES = 16 * 2**20

Labels = frozenset[tuple[str, str]]


@dataclass(frozen=True)
class Scrape:
    """All samples of one server ``at`` a time on :func:`time.monotonic`'s clock, by name and labels."""

    at: float
    samples: Mapping[str, Mapping[Labels, float]] = field(default_factory=dict)

    def of(self, name: str, wanted: Mapping[str, str]) -> Iterator[tuple[Labels, float]]:
        """The samples called ``name`` that have all ``wanted`` labels."""
        needed = wanted.items()
        return ((labels, value) for labels, value in self.samples.get(name, {}).items() if labels >= needed)


def parse(text: str, at: float) -> Scrape:
    """Prometheus' text format. Raises ValueError for what isn't."""
    samples: dict[str, dict[Labels, float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
    return Scrape(at, samples)


def scrape(url: str, token: str | None = None) -> Scrape:
    """The metrics at ``url``; ``token`` is a bearer's. Raises Unavailable, which says what to look at."""
    headers = {"Accept": "text/plain", **({"Authorization": f"Bearer {token}"} if token else {})}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT_S) as answer:
            body: bytes = answer.read(_MOST_BYTES)
        found = parse(body.decode(), time.monotonic())
    except urllib.error.HTTPError as error:
        hint = ": give it a --token-file" if error.code in (401, 403) else ""
        raise Unavailable(f"{url} answers {error.code} {error.reason}{hint}") from error
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(f"{url} doesn't answer: {getattr(error, 'reason', error)}") from error
    except ValueError as error:
        raise Unavailable(f"{url} has no Prometheus metrics: {error}") from error
    if "samgate_build_info" not in found.samples:
        raise Unavailable(f"{url} has no metrics of samgate")
    return found
