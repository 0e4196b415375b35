"""Optional libraries, and how each is installed."""

from __future__ import annotations

from importlib.util import find_spec

from ..errors import RequestError

# Import name -> extra, as pyproject.toml declares them.
EXTRAS = {
    "baycomp": "bayes",
    "cleanlab": "labels",
    "datasets": "huggingface",
    "peft": "lora",
    "psycopg": "postgres",
    "pynvml": "gpu",
    "ray": "ray",
    "submitit": "slurm",
    "webdataset": "shards",
}


def require(library: str, feature: str) -> None:
    """Refuses a feature whose library is not installed.

    Raises:
        RequestError: It is not; `remedy` tells how to install it.
    """
    if find_spec(library) is None:
        cause = ModuleNotFoundError(f"No module named {library!r}", name=library)
        raise RequestError(f"{feature} needs {library}, which is not installed") from cause


def remedy(error: BaseException) -> str | None:
    """How to install the library whose absence caused the error; None where no missing library did.

    The libraries below this package raise ValueError from ModuleNotFoundError and know nothing of extras.

    >>> remedy(ValueError("lr must be above 0")) is None
    True
    >>> try:
    ...     raise ValueError("data.name=PCAM needs h5py") from ModuleNotFoundError(name="h5py")
    ... except ValueError as error:
    ...     remedy(error)
    'pip install h5py'
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ModuleNotFoundError) and cause.name:
            return install_command(cause.name.partition(".")[0])
        cause = cause.__cause__
    return None


def install_command(library: str) -> str:
    """What installs a library today, when this package is on no index: from its checkout, or a built wheel.

    >>> install_command("psycopg")
    'pip install ".[postgres]" in the checkout of darkroom, or with the path of its wheel in place of the dot'
    """
    if library not in EXTRAS:
        return f"pip install {library}"
    return (
        f'pip install ".[{EXTRAS[library]}]" in the checkout of darkroom, '
        "or with the path of its wheel in place of the dot"
    )
