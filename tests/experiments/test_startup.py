"""What is set before anything is imported does what it says, and hides nothing."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from experiments.startup import keep_memory, spare_imports

USES = [
    "from scipy.signal import lfilter; lfilter([1], [1], [2.0])",
    "import scipy.signal; scipy.signal.lfilter([1], [1], [2.0])",
    "import scipy.signal.windows; scipy.signal.windows.hamming(3)",
    "import inspect, scipy.signal; inspect.getmodule(print); scipy.signal.lfilter([1], [1], [2.0])",
    "from transformers import PreTrainedModel; PreTrainedModel.forward",
    "import transformers; transformers.PreTrainedModel.forward",
    "import transformers.utils; from transformers import AutoModel; AutoModel.from_config",
    "from importlib.util import find_spec; assert find_spec('transformers')",
    "import peft; peft.LoraConfig()",
    "import sys, experiments.sweep.space; assert 'optuna' not in sys.modules",
]
# Each use in a process that has imported nothing but what torchmetrics imports.
SPARED = """
import os, sys
from experiments.startup import spare_imports
spare_imports()
import torchmetrics.functional
imported = {"scipy.signal._signal_api", "transformers.utils"} & sys.modules.keys()
assert not imported, f"torchmetrics has imported {imported} all the same"
failed = []
for use in sys.argv[1:]:
    child = os.fork()
    if not child:
        exec(use)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        failed.append(use)
assert not failed, failed
"""


def test_a_library_that_is_not_imported_at_the_start_is_there_when_it_is_used():
    done = subprocess.run([sys.executable, "-c", SPARED, *USES], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_library_that_is_not_installed_is_not_there_either(monkeypatch):
    monkeypatch.setattr("experiments.startup.find_spec", lambda name: None)
    monkeypatch.delitem(sys.modules, "transformers", raising=False)
    spare_imports()
    assert "transformers" not in sys.modules


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
