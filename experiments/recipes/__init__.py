"""The experiments themselves, as YAML files, found by name."""

from __future__ import annotations

from pathlib import Path

from ..errors import RequestError, nearest

FOLDER = Path(__file__).parent


def recipe_names() -> list[str]:
    """All recipes that ship, sorted."""
    return sorted(path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.yaml"))


def find_recipe(name: str) -> Path:
    """The YAML file that a recipe's name, or a path, stands for.

    Raises:
        RequestError: There is none.
    """
    path = Path(name)
    if path.suffix in {".yaml", ".yml"}:
        if path.is_file():
            return path
        raise RequestError(f"there is no file {path.resolve()}; give a YAML file or the name of a recipe")
    recipe = FOLDER / f"{name}.yaml"
    if recipe.is_file() and name in recipe_names():
        return recipe
    raise RequestError(f"no recipe is named {name!r}; {nearest(name, recipe_names())} (darkroom list)")
