"""OpenVINO without its telemetry: import it from here.

When OpenVINO is imported, it reports this to its developers if the package ``openvino_telemetry`` can be imported too.
This module prevents the report.
"""

import sys

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
import openvino  # noqa: E402

__all__ = ["openvino"]
