"""What queries are about: metric names, labels and values in PromQL, and what a scrape has of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

_STRING = r'"(?:[^"\\]|\\.)*"'
_MATCHER = re.compile(rf"(\w+)\s*(=~|!~|!=|=)\s*({_STRING})")
_SELECTOR = re.compile(rf"([A-Za-z_:][\w:]*)?\s*\{{((?:{_STRING}|[^}}\"])*)\}}")
_GROUPING = re.compile(r"\b(?:by|on|without|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_NAME = re.compile(r"[A-Za-z_:][\w:]*")
_KEYWORDS = "by on and or unless group_left"
_FUNCTIONS = "sum max min avg count rate increase changes absent histogram_quantile time"
_WORDS = frozenset(f"{_KEYWORDS} {_FUNCTIONS}".split())
_SCRAPED = frozenset({"job", "instance", "namespace"})
"""Labels that Prometheus adds."""


@dataclass
class Exposed:
    """Labels and their values by series name."""

    series: dict[str, dict[str, set[str]]] = field(default_factory=dict)

    @classmethod
    def of(cls, text: str) -> Exposed:
        """What a scrape has."""
        found = cls()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = found.series.setdefault(sample.name, {})
                for name, value in sample.labels.items():
                    labels.setdefault(name, set()).add(value)
        return found

    def add(self, name: str, labels: Iterable[str]) -> None:
        """A series that a rule records."""
        self.series[name] = {label: set() for label in labels}

    def problems(self, query: str) -> list[str]:
        """What ``query`` asks for that isn't there."""
        found: list[str] = []
        known: set[str] = set(_SCRAPED)
        for name in self.names(query):
            if name in self.series:
                known |= self.series[name].keys()
            else:
                found.append(f"no series {name}")
        for name, matchers in _SELECTOR.findall(query):
            labels: Mapping[str, set[str]] = self.series.get(name, {})
            for label, sign, value in _MATCHER.findall(matchers):
                if label not in labels and label not in _SCRAPED:
                    found.append(f"{name} has no label {label}")
                values = labels.get(label)
                if sign == "=" and values and value.strip('"') not in values:
                    found.append(f"{name} has no {label}={value}")
        for labels_text in _GROUPING.findall(query):
            unknown = {label.strip() for label in labels_text.split(",") if label.strip()} - known
            found += [f"nothing here has the label {label}" for label in unknown]
        return found

    @staticmethod
    def names(query: str) -> set[str]:
        """Names of the series that ``query`` reads."""
        bare = _GROUPING.sub(" ", _SELECTOR.sub(r" \1 ", query))
        bare = re.sub(r"\[[^\]]*\]", " ", bare)
        bare = re.sub(r"\b\d[\w.]*", " ", bare)
        return {name for name in _NAME.findall(bare) if name not in _WORDS}
