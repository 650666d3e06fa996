"""What a client holds of an answer that is still being made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from samgate.segevery.sampler import EverythingResult


@dataclass(frozen=True, slots=True)
class Change:
    """Masks to send, each with its id, in the order of the results, and the ids of those that no longer count."""

    new: tuple[tuple[int, EverythingResult], ...]
    retracted: tuple[int, ...]


class Shown:
    """Masks that were sent and not retracted, by id. Ids count up from 0 in the order of sending."""

    def __init__(self) -> None:
        self._ids: dict[EverythingResult, list[int]] = {}
        self._next = 0
        self.count = 0

    def change(self, results: Sequence[EverythingResult]) -> Change:
        """What is to be done for ``results`` to be shown, and nothing else. Each of ``new`` counts as shown once it was
        :meth:`sent`, ``retracted`` don't any more."""
        wanted = Counter(results)
        retracted: list[int] = []
        for result, ids in list(self._ids.items()):
            surplus = len(ids) - wanted[result]
            if surplus > 0:
                retracted += ids[-surplus:]
                del ids[-surplus:]
                if not ids:
                    del self._ids[result]
        self.count -= len(retracted)
        have = {result: len(ids) for result, ids in self._ids.items()}
        new: list[tuple[int, EverythingResult]] = []
        for result in results:
            if have.get(result, 0) > 0:
                have[result] -= 1
            else:
                new.append((self._next + len(new), result))
        return Change(tuple(new), tuple(sorted(retracted)))

    def sent(self, number: int, result: EverythingResult) -> None:
        """``result`` is shown from now on, as ``number``: the next in the order of the change."""
        self._ids.setdefault(result, []).append(number)
        self._next = number + 1
        self.count += 1
