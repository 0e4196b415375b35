"""Commands in processes of their own that need not import anything: forked from one that has.

    python tests/preloaded.py

Reads a line of JSON for each command from its standard input: `arguments`, `folder`, `environment`, and the
files that its `output` and `errors` go to. Answers with a line that holds the exit status.
"""

from __future__ import annotations

import json
import os
import sys
import time

SECONDS = 300  # that a command may take


def serve() -> None:
    """Returns in the process of a command alone, once for each; the server ends with its standard input."""
    for line in sys.stdin:
        command = json.loads(line)
        child = os.fork()
        if not child:
            become(**command)
            return
        deadline = time.monotonic() + SECONDS
        while not (ended := os.waitpid(child, os.WNOHANG))[0]:
            if time.monotonic() > deadline:
                os.kill(child, 9)
            time.sleep(0.005)
        print(os.waitstatus_to_exitcode(ended[1]), flush=True)
    os._exit(0)


def become(arguments: list[str], folder: str, environment: dict[str, str], output: str, errors: str) -> None:
    """Makes this process look as `python -m experiments` would have started it."""
    for number, path in enumerate((os.devnull, output, errors)):
        opened = os.open(path, os.O_RDWR)
        os.dup2(opened, number)
        os.close(opened)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv[1:] = arguments
    sys.path.insert(0, folder)


if __name__ == "__main__":
    del sys.path[0]  # the tests' own folders are named as the packages are
    from experiments.startup import import_module, spare_imports

    spare_imports()
    for name in ("train", "sweep.command", "evaluate", "tracking"):
        import_module(f"experiments.{name}")
    import_module("mlflow.pytorch")
    import_module("mlflow.store.tracking.sqlalchemy_store")
    import_module("torch.export")
    import_module("matplotlib.backends.backend_agg")
    serve()
    from experiments.__main__ import main

    sys.exit(main())
