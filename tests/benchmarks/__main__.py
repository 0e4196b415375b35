"""Runs the benchmarks one after another, except those that need a GPU: `python tests/benchmarks`."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

SHARED = ("__main__.py", "bench.py")


def benchmarks() -> list[Path]:
    """All programs that print figures."""
    return sorted(path for path in Path(__file__).parent.glob("*.py") if path.name not in SHARED)


def needs_gpu(path: Path) -> bool:
    return re.search(r"^NEEDS_GPU = True$", path.read_text(), re.MULTILINE) is not None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="all that need no GPU where none is named")
    parser.add_argument("--tiny", action="store_true", help="look whether they run")
    given = parser.parse_args()
    known = {path.stem: path for path in benchmarks()}
    for name in given.names:
        if name not in known:
            parser.error(f"there is no benchmark {name}; there are {', '.join(known)}")
    chosen = given.names or [name for name, path in known.items() if not needs_gpu(path)]
    tiny = ["--tiny"] if given.tiny else []
    failed = [name for name in chosen if subprocess.run([sys.executable, known[name], *tiny]).returncode]
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
