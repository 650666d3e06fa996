"""OpenVINO without its telemetry, for everybody who imports it: ``from samgate.engines.quiet_openvino import ov``.

With ``openvino-telemetry`` installed, which OpenVINO requires, importing it reports to Google Analytics: from a fork of
this process, whose threads may hold locks at that moment. A fork that hangs keeps the server from ending, as Python
waits for it at its exit. Where the module can't be imported, OpenVINO does without.
"""

from __future__ import annotations

import sys

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # which says that it can't be imported

import openvino as ov  # noqa: E402

__all__ = ["ov"]
