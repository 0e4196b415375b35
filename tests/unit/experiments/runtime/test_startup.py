"""What is set before anything is imported does what it says, and hides nothing."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from importlib.util import find_spec

import pytest

from darkroom.experiments.runtime.startup import keep_memory, spare_imports

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
    "import sys, darkroom.experiments.config.search_space.space; assert 'optuna' not in sys.modules",
]
# Each use in a process that has imported nothing but what torchmetrics imports.
SPARED = """
import os, sys
from darkroom.experiments.runtime.startup import spare_imports
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
    optional = [name for name in ("transformers", "peft") if find_spec(name) is None]
    uses = [use for use in USES if not any(name in use for name in optional)]
    done = subprocess.run([sys.executable, "-c", SPARED, *uses], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_library_that_is_not_installed_is_not_there_either(monkeypatch):
    monkeypatch.setattr("darkroom.experiments.runtime.startup.find_spec", lambda name: None)
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


FROZEN = """
import atexit, gc
atexit.register(lambda: print(gc.get_freeze_count()))  # the first that is registered runs last
from darkroom.experiments.runtime.startup import import_module
import_module("json.tool")
print(gc.get_freeze_count())
"""


def test_what_is_kept_out_of_collections_is_collected_when_the_process_ends():
    """Else nanobind tells of each function of triton's that is left, in 26 lines after every run."""
    done = subprocess.run([sys.executable, "-c", FROZEN], capture_output=True, text=True)
    frozen, at_the_end = map(int, done.stdout.split())
    assert frozen > 1000
    assert at_the_end == 0
