"""What is kept of an image for its next chunk of prompts, and for how long."""

from __future__ import annotations

import gc

import numpy as np

from samgate.domain import FloatArray
from samgate.engines.terms import LatestTerms, Terms


def embedding() -> FloatArray:
    return np.zeros((4, 2, 2), np.float32)


def terms(number: float) -> Terms:
    return {"image_terms": np.full((1, 3, 4), number, np.float32)}


def test_terms_are_of_the_very_array() -> None:
    latest, one, other = LatestTerms(), embedding(), embedding()
    latest.keep(one, kept := terms(1))
    assert latest.of(one) is kept
    assert latest.of(other) is None


def test_the_one_asked_for_least_recently_goes_first() -> None:
    latest, images = LatestTerms(most=2), [embedding() for _ in range(3)]
    latest.keep(images[0], terms(0))
    latest.keep(images[1], terms(1))
    assert latest.of(images[0]) is not None
    latest.keep(images[2], terms(2))
    assert [latest.of(image) is not None for image in images] == [True, False, True]


def test_terms_go_with_their_embedding() -> None:
    latest, gone = LatestTerms(most=2), embedding()
    latest.keep(gone, terms(0))
    address = id(gone)
    del gone
    gc.collect()
    latest.keep(other := embedding(), terms(1))
    assert latest.of(other) is not None
    assert list(latest._held) == [id(other)] or address == id(other)
    assert len(latest._held) == 1
