"""Records what an upstream's own code answers with drawn weights: files in ``golden/``.

    PYTHONPATH=service:tests python tests/parity/make_golden.py FAMILY CHECKOUT [VARIANT …]

FAMILY is a module in ``upstream/``, whose docstring says which commit of which repository CHECKOUT is and what it
needs; samgate's own networks aren't needed. By default for all of its variants, each as published and reduced. The
tests need neither upstream nor this script; run it again only when weights.py or cases.py changes.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
import torch

from parity.recording import Upstream, golden_path, record
from samgate.variants import get_variant
from samgate.variants.spec import VariantSpec


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("family", help="module in upstream/")
    parser.add_argument("checkout", help="folder with upstream's repository")
    parser.add_argument("variant", nargs="*", help="by default all of the family")
    parser.add_argument("--small", action="store_true", help="the reduced networks alone")
    args = parser.parse_args()
    family = importlib.import_module(f"parity.upstream.{args.family}")
    load = cast("Callable[[str, VariantSpec], Upstream]", family.load)
    sys.path.insert(0, args.checkout)
    for name in args.variant or cast("Sequence[str]", family.VARIANTS):
        spec = get_variant(name)
        for small in (True,) if args.small else (True, False):
            if small and not spec.small:
                continue
            path = golden_path(spec, small)
            one = spec.reduced() if small else spec
            with torch.inference_mode():
                np.savez_compressed(path, allow_pickle=False, **record(load(args.checkout, one), one))
            print(f"{path}: {path.stat().st_size:,} bytes", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
