"""Image suffixes and UTF-8 checks of file names."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Literal

from ..messages import some

# What is decoded; other files are no images by their names.
IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm",
)  # fmt: skip
ClassOrder = Literal["natural", "text"]
_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]+")


def is_image(name: str) -> bool:
    """Whether a file is one by its name.

    >>> is_image("cat.JPEG"), is_image(".cat.jpg"), is_image("jpg")
    (True, False, False)
    """
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")


def class_name(name: str, order: ClassOrder) -> str:
    r"""The class that a name stands for.

    macOS writes accents as characters of their own (NFD), most others do not (NFC): one name, one class.

    >>> class_name("cafe\u0301", "natural") == "caf\u00e9", class_name("cafe\u0301", "text") == "caf\u00e9"
    (True, False)
    """
    return unicodedata.normalize("NFC", name) if order == "natural" else name


def sorted_classes(names: Iterable[str], order: ClassOrder) -> list[str]:
    """Each name once, in the order of the classes' indices.

    >>> sorted_classes(["10", "9", "9"], "natural"), sorted_classes(["10", "9"], "text")
    (['9', '10'], ['10', '9'])
    >>> sorted_classes(["10", "9", "x"], "natural")
    ['10', '9', 'x']
    """
    distinct = set(names)
    if order == "natural" and all(_WHOLE_NUMBER.fullmatch(name) for name in distinct):
        return sorted(distinct, key=lambda name: (int(name), name))
    return sorted(distinct)


def refuse_undecodable(names: Sequence[str]) -> None:
    """Refuses names of files that are not UTF-8: no table, page or record could hold them.

    Raises:
        ValueError: Some are not.
    """
    odd = [name for name in names if not name.isascii() and name != readable(name)]
    if odd:
        files, them = (
            ("1 file has a name", "it") if len(odd) == 1 else (f"{len(odd)} files have names", "them")
        )
        raise ValueError(
            f"{files} not in UTF-8, which all names must be in: {some([readable(name) for name in odd])} "
            f"(with \\x.. for what is not); rename {them}"
        )


def readable(name: str) -> str:
    r"""A file's name as can be printed and written: bytes that are not UTF-8 in numbers.

    >>> readable("café/" + b"caf\xe9.png".decode(errors="surrogateescape"))
    'café/caf\\xe9.png'
    """
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")
