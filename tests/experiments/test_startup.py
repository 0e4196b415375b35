"""What is set before anything is imported does what it says, and hides nothing."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from experiments.startup import keep_memory

SPARED = """
import sys
from experiments.startup import spare_imports
spare_imports()
import torchmetrics.functional
assert "scipy.signal._signal_api" not in sys.modules, "torchmetrics has imported it all the same"
"""


@pytest.mark.parametrize(
    "use",
    [
        "from scipy.signal import lfilter; lfilter([1], [1], [2.0])",
        "import scipy.signal; scipy.signal.lfilter([1], [1], [2.0])",
        "import scipy.signal.windows; scipy.signal.windows.hamming(3)",
        "import inspect, scipy.signal; inspect.getmodule(print); scipy.signal.lfilter([1], [1], [2.0])",
    ],
)
def test_a_library_that_is_not_imported_at_the_start_is_there_when_it_is_used(use):
    program = f"{SPARED}\n{use}\nassert 'scipy.signal._signal_api' in sys.modules"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("value", "asked"), [(None, 3), ("1", 3), ("0", 0)])
def test_memory_is_kept_unless_the_environment_says_no(value, asked, monkeypatch):
    options = []

    class Libc:
        def mallopt(self, option, value):
            options.append(option)

    monkeypatch.setattr(ctypes, "CDLL", lambda name: Libc())
    monkeypatch.delenv("DARKROOM_KEEP_MEMORY", raising=False)
    if value is not None:
        monkeypatch.setenv("DARKROOM_KEEP_MEMORY", value)
    keep_memory()
    assert len(options) == asked
