"""Starting is quick: what nobody asked for is not imported."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import sys, torch
before = torch.compiler.allow_in_graph
import rheostat.training.run
assert "torch._dynamo" not in sys.modules, "the compiler was loaded"
assert torch.compiler.allow_in_graph is before
"""


def test_a_run_is_made_without_the_compiler() -> None:
    subprocess.run([sys.executable, "-c", SCRIPT], check=True)
