"""Entry point of the command line: dispatches a command, maps errors to exit codes."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ..config.overrides import split_overrides
from ..errors import Interrupted, RequestError, RunError
from ..recipes import find_recipe
from ..runtime.extras import remedy
from ..runtime.startup import import_module, keep_memory, spare_imports
from .parser import COMMANDS, build_parser, command_parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(argv)
    except RequestError as error:
        install = remedy(error)
        return _tell(f"{error}: {install}" if install else error, 2)
    except RunError as error:
        return _tell(error, 1)
    except ValueError as error:
        from darkroom.datamodules.images.decoding import (
            BadImageError,  # slow to import, and imported by now if it is one
        )

        if not isinstance(error, BadImageError):
            raise
        return _tell(error, 1)
    except Interrupted as error:
        return _tell(str(error) or error.reason, error.status)
    except KeyboardInterrupt:
        return _tell(Interrupted.reason, Interrupted.status)


def _dispatch(argv: list[str]) -> int:
    parser = build_parser()
    name = argv[0] if argv else "--help"
    if name not in COMMANDS:
        parser.parse_args([name])  # prints help, or names the known commands and exits with 2
        return 2
    command = COMMANDS[name]
    own_parser = command_parser(name)
    if name == "show" and len(argv) > 2 and {"-h", "--help"} & set(argv):
        argv = [argument for argument in argv if argument not in ("-h", "--help")]
        own_parser.set_defaults(keys_help=True)
    overrides: dict[str, str] = {}
    own = argv[1:]
    if command.takes_keys:
        options = [option for action in own_parser._actions for option in action.option_strings]
        own, overrides = split_overrides(own, options)
    arguments = own_parser.parse_args(own)
    for source in getattr(arguments, "experiments", ()):
        find_recipe(source)  # refuses one that does not exist before the command's libraries are imported
    keep_memory()
    spare_imports()
    status: int | None = import_module(f"darkroom.experiments.{command.module}").run(arguments, overrides)
    return status or 0


def _tell(error: BaseException | str, status: int) -> int:
    print(f"darkroom: {error}", file=sys.stderr)
    return status
