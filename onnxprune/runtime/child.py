"""A Python process of the same kind and import path, for what may end the process or has to be its first session."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def run_child(code: str, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run the Python source `code` with `arguments` as `sys.argv[1:]`, and wait for it; what it writes is captured."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)}
    command = [sys.executable, "-P", "-c", code, *arguments]
    return subprocess.run(command, env=environment, input=stdin, capture_output=True, check=False)
