"""Images listed in a CSV or Parquet table, with their labels, and splits and groups where it has them."""

from __future__ import annotations

import csv
import difflib
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..messages import MAX_NAMED, some
from .class_names import likely_typos
from .file_names import class_name, refuse_undecodable, sorted_classes
from .folder import PARTS
from .image_files import ImageFiles, Listing


class ImageTable(ImageFiles):
    """A table with one row for each image.

    Args:
        table: The CSV or Parquet file.
        root: The folder that paths are relative to; null takes the table's own. No path may leave it.
        image_column: Column with the paths.
        label_columns: One column with each image's class; or, for multi-label tasks, several with 0 or 1,
            or False or True.
        label_delimiter: For multi-label tasks in one column: what stands between an image's labels.
        split_column: Column that says train, val (or valid, validation) or test.
        group_column: Column with what must not be torn apart by a split, such as patients.
    """

    def __init__(
        self,
        table: str,
        root: str | None = None,
        image_column: str = "image",
        label_columns: list[str] = ["label"],  # noqa: B006 (never changed)
        label_delimiter: str | None = None,
        split_column: str | None = None,
        group_column: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not label_columns:
            raise ValueError("data.label_columns must name at least one column")
        if label_delimiter is not None and len(label_columns) > 1:
            raise ValueError("data.label_delimiter is for one column; data.label_columns names several")
        if label_delimiter == "":
            raise ValueError("data.label_delimiter must be a character, such as | or ;")
        self.table = Path(table).expanduser()
        self.root = Path(root).expanduser() if root is not None else self.table.parent
        self.image_column = image_column
        self.label_columns = list(label_columns)
        self.label_delimiter = label_delimiter
        self.split_column = split_column
        self.group_column = group_column
        self.multilabel = label_delimiter is not None or len(label_columns) > 1

    @property
    def sorts_classes(self) -> bool:
        # The order of several columns is that of data.label_columns.
        return self.classes is None and len(self.label_columns) == 1

    def list_samples(self) -> Listing:
        frame = self._read()
        if not self.multilabel:
            frame[self.label_columns[0]] = frame[self.label_columns[0]].astype(object).map(_bare)
        self._check_cells(frame)
        names = [str(name) for name in frame[self.image_column]]
        paths = [self._path(name) for name in names]
        self._check_files(names, paths)
        # One file may be spelled in several ways, such as ./a.png and a.png.
        ids = [self._id(path) for path in paths]
        refuse_undecodable(ids)  # which pandas could not hold either
        frame[self.image_column] = ids
        new = ~frame.duplicated()  # the very same row twice says nothing new
        frame, paths = frame[new], [path for path, is_new in zip(paths, new, strict=True) if is_new]
        self._check_repeated(frame)
        targets, class_names, notes = self._labels(frame)
        parts = ["train"] * len(paths)
        if self.split_column is not None:
            parts = [self._part(str(name)) for name in frame[self.split_column]]
        return Listing(
            ids=frame[self.image_column].tolist(),
            targets=targets,
            parts=parts,
            class_names=class_names,
            paths=paths,
            groups=None if self.group_column is None else [str(name) for name in frame[self.group_column]],
            notes=notes,
        )

    def metadata(self) -> pd.DataFrame:
        """The columns that say neither label nor split, by sample id; of rows with one image the first.

        Raises:
            FileNotFoundError: The table is not there.
            ValueError: It is no table.
        """
        frame = self._load()
        names = frame[self.image_column].astype(str)
        frame.index = pd.Index([self._id(self._path(name)) for name in names], name="id")
        told = [self.image_column, *self.label_columns, self.split_column]
        kept = [column for column in frame.columns if column not in told]
        return frame.loc[~frame.index.duplicated(), kept]

    def _load(self) -> pd.DataFrame:
        """All rows and columns."""
        if not self.table.is_file():
            raise FileNotFoundError(f"data.table={self.table} is no file: expected a CSV or Parquet table")
        try:
            if self.table.suffix.lower() in (".parquet", ".pq"):
                return pd.read_parquet(self.table)
            # Names stay names: a class called 01 or NA is not a number, nor missing.
            frame = pd.read_csv(self.table, dtype=str, keep_default_na=False, na_values=[""])
        except UnicodeDecodeError as error:
            raise ValueError(
                f"data.table={self.table} is not in UTF-8 ({error}): save it so; images whose own names are "
                "not in it must be renamed"
            ) from error
        except (ValueError, OSError) as error:
            if isinstance(error, pd.errors.ParserError):
                self._check_lengths()
            raise ValueError(f"data.table={self.table} can't be read as a table: {error}") from error
        if not isinstance(frame.index, pd.RangeIndex):  # pandas takes what is too much for an index
            self._check_lengths()
        return frame

    def _check_lengths(self) -> None:
        """Refuses rows of a CSV that have more cells than its header."""
        with self.table.open(newline="", encoding="utf-8", errors="replace") as file:
            try:
                header, *rows = [row for row in csv.reader(file) if row]
            except (csv.Error, ValueError):
                return
        long = [number for number, row in enumerate(rows, start=1) if len(row) > len(header)]
        if long:
            raise ValueError(
                f"{self.table} has more cells than the {len(header)} of its header in {_in_rows(long)}: "
                "a cell with a comma in it must stand in quotes, and each column needs a name"
            )

    def _read(self) -> pd.DataFrame:
        """What images are listed by."""
        frame = self._load()
        wanted: dict[str, Sequence[str | None]] = {
            "image_column": [self.image_column],
            "label_columns": self.label_columns,
        }
        wanted |= {"split_column": [self.split_column], "group_column": [self.group_column]}
        for key, columns in wanted.items():
            for column in columns:
                if column is not None and column not in frame.columns:
                    known = [str(name) for name in frame.columns]
                    near = difflib.get_close_matches(column, known, n=1)
                    raise ValueError(
                        f"{self.table} has no column {column!r} (data.{key}); it has {', '.join(known)}"
                        + (f"; did you mean {near[0]}?" if near else "")
                    )
        if frame.empty:
            raise ValueError(f"{self.table} has no rows")
        used = [column for columns in wanted.values() for column in columns if column is not None]
        return frame[list(dict.fromkeys(used))].reset_index(drop=True)

    def _path(self, name: str) -> Path:
        path = self._found(name).resolve()
        if not path.is_relative_to(self.root.resolve()):
            raise ValueError(
                f"{self.table} names {name}, which leaves data.root={self.root}: {_way_out(self.root, name)}"
            )
        return path

    def _found(self, name: str) -> Path:
        """The file by that name, or by the same one with accents stored in the other way, as macOS has it."""
        if name.isascii() or (self.root / name).exists():
            return self.root / name
        forms = [self.root / unicodedata.normalize(form, name) for form in ("NFC", "NFD")]
        return next((path for path in forms if path.exists()), self.root / name)

    def _id(self, path: Path) -> str:
        return path.relative_to(self.root.resolve()).as_posix()

    def _check_cells(self, frame: pd.DataFrame) -> None:
        for column in frame.columns:
            # An image without labels is one that has none, where several may be had.
            if column in self.label_columns and self.label_delimiter is not None:
                continue
            missing = frame[column].isna() | (frame[column].astype(str).str.strip() == "")
            rows = [row + 1 for row in np.flatnonzero(missing).tolist()]
            if not rows:
                continue
            names = some([str(name) for name in frame[self.image_column][missing]])
            which = "" if column == self.image_column else f" for {names}"
            raise ValueError(
                f"{self.table} has no {column}{which} in {_in_rows(rows)}: fill the cells, or remove the rows"
            )

    def _check_files(self, names: Sequence[str], paths: Sequence[Path]) -> None:
        absent = [name for name, path in zip(names, paths, strict=True) if not path.is_file()]
        if not absent:
            return
        windows = sum("\\" in name and (self.root / name.replace("\\", "/")).is_file() for name in absent)
        hint = f"; with / in place of \\ {windows} of them would be: write paths so" if windows else ""
        raise FileNotFoundError(
            f"{self.table} names files that are not in {self.root.resolve()}: {some(absent)}; "
            f"data.root is the folder that paths are relative to{hint}"
        )

    def _check_repeated(self, frame: pd.DataFrame) -> None:
        repeated = frame[frame[self.image_column].duplicated(keep=False)]
        if repeated.empty:
            return
        said = sorted(set(repeated[self.image_column]))
        for place, name in enumerate(said[:MAX_NAMED]):
            rows = repeated[repeated[self.image_column] == name]
            differing = [str(column) for column in rows.columns if rows[column].nunique(dropna=False) > 1]
            said[place] = f"{name} ({', '.join(differing)} in {_in_rows((rows.index + 1).tolist())})"
        raise ValueError(
            f"{self.table} has rows that contradict each other, for {some(said)}: one image, one row"
        )

    def _labels(self, frame: pd.DataFrame) -> tuple[NDArray[Any], list[str], list[str]]:
        if self.label_delimiter is not None:
            given = [
                {class_name(name, self.class_order) for name in _split(text, self.label_delimiter)}
                for text in frame[self.label_columns[0]]
            ]
            names = sorted_classes((name for labels in given for name in labels), self.class_order)
            if not names:
                raise ValueError(f"{self.table} has no label at all in {self.label_columns[0]}")
            rows = [[name in labels for name in names] for labels in given]
            targets = np.array(rows, dtype=np.float32)
            return targets, names, likely_typos(names, targets.sum(0))
        if self.multilabel:
            cells = frame[self.label_columns].map(_as_number)
            numbers = cells.apply(pd.to_numeric, errors="coerce").to_numpy(np.float32)
            wrong = ~np.isin(numbers, (0, 1))
            if wrong.any():
                row, column = np.argwhere(wrong)[0]
                name = self.label_columns[column]
                raise ValueError(
                    f"{self.table} has {frame[name].iloc[row]!r} in {name} for "
                    f"{frame[self.image_column].iloc[row]} (row {frame.index[row] + 1}): several label "
                    "columns have 0 or 1 each, or False or True"
                )
            return np.array(numbers), self.label_columns, []
        labels = [class_name(str(name), self.class_order) for name in frame[self.label_columns[0]]]
        class_names = sorted_classes(labels, self.class_order)
        index = {name: place for place, name in enumerate(class_names)}
        targets = np.array([index[name] for name in labels], dtype=np.int64)
        return targets, class_names, likely_typos(class_names, np.bincount(targets))

    def _part(self, name: str) -> str:
        part = PARTS.get(name.strip().lower())
        if part is None:
            raise ValueError(
                f"{self.table} has {name!r} in {self.split_column}: expected train, val (or valid, "
                "validation) or test"
            )
        return part


def _way_out(root: Path, name: str) -> str:
    """Why a path below a root is none, and what to do."""
    if Path(name).is_absolute():
        place = Path(name).resolve()
        return f"it lies at {place}; set data.root to a folder above, such as {place.parent}"
    parts = Path(name).parts
    for depth in range(1, len(parts) + 1):
        link, target = Path(*parts[:depth]), root.joinpath(*parts[:depth]).resolve()
        if not (root / link).is_symlink() or target.is_relative_to(root.resolve()):
            continue
        if target.parts[-depth:] == link.parts:
            return f"{link} is a link to {target}; set data.root to {Path(*target.parts[:-depth])}"
        if target.is_dir():
            return f"{link} is a link to {target}; set data.root to that, and leave {link}/ out of the paths"
        return (
            f"{link} is a link to {target}; set data.root to {target.parent} and write {target.name}, or put "
            "the file itself in the link's place"
        )
    return "set data.root to a folder above both, and write paths from there, without .."


def _as_number(cell: Any) -> Any:
    """False and True as 0 and 1, which they are in Parquet and words in CSV."""
    return {"false": 0, "true": 1}.get(cell.strip().lower(), cell) if isinstance(cell, str) else cell


def _in_rows(numbers: Sequence[int]) -> str:
    """Rows of a table, in words.

    >>> _in_rows([3])
    'row 3 below the header'
    """
    noun = "row" if len(numbers) == 1 else "rows"
    return f"{noun} {some([str(number) for number in numbers])} below the header"


def _bare(cell: Any) -> str | None:
    """A class's name without the blanks around it; None where there is none."""
    return (str(cell).strip() or None) if not pd.isna(cell) else None


def _split(text: object, delimiter: str) -> set[str]:
    """An image's labels; none where the cell is empty."""
    if not isinstance(text, str):
        return set()
    return {name.strip() for name in text.split(delimiter) if name.strip()}
