import subprocess
import sys

WATCH = """
import sys
asked = []
sys.addaudithook(lambda event, arguments: asked.append(event) if event.startswith("socket.") else None)
import engines.backends.openvino
import daemon.cli.app
assert "openvino_telemetry.main" not in sys.modules
print(asked)
"""


def test_nothing_looks_for_the_network_at_import():
    done = subprocess.run([sys.executable, "-c", WATCH], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_the_daemon_needs_no_pytorch():
    script = "import sys, daemon.service, daemon.cli.app; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"
