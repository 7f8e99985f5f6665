"""OpenVINO without its telemetry: import it from here.

OpenVINO reports every import to its makers if its telemetry package can be imported; this module prevents that.
"""

import sys

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
import openvino  # noqa: E402

__all__ = ["openvino"]
