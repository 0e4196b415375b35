"""Writes the reference from the code: commands, configuration keys, recipes, modules and the file tree."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import re
import shutil
import types
import typing
from collections.abc import Iterator
from pathlib import Path

import docstring_parser
import yaml
from sphinx.application import Sphinx

from darkroom import datamodules, lightning_modules
from darkroom.experiments.cli.parser import COMMANDS, command_parser
from darkroom.experiments.config.keys import classes_for
from darkroom.experiments.config.parser import SETTINGS
from darkroom.experiments.recipes import FOLDER, recipe_names

ROOT = Path(__file__).parents[2]
PACKAGES = ("experiments", "datamodules", "lightning_modules")


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers the generator with Sphinx."""
    app.connect("builder-inited", write_pages)
    return {"parallel_read_safe": True}


def write_pages(app: Sphinx) -> None:
    """Writes all generated pages below `reference/generated`, replacing those of an earlier build."""
    folder = Path(app.srcdir) / "reference" / "generated"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "python").mkdir(parents=True)
    (folder / "commands.md").write_text(commands_page())
    (folder / "configuration.md").write_text(configuration_page())
    (folder / "recipes.md").write_text(recipes_page())
    (folder / "tree.md").write_text(tree_page())
    names = []
    for package in packages():
        name = module_name(package)
        (folder / "python" / f"{name}.md").write_text(package_page(package))
        names.append(name)
    (folder / "python" / "index.md").write_text(python_index(names))


# Commands ---------------------------------------------------------------------------------------


def commands_page() -> str:
    """Every command with its arguments and options, from the command table."""
    parts = [
        "# Commands\n",
        "Every command takes `--help`. Commands that take configuration keys accept them anywhere on the "
        "line as `--key=value`; [configuration](configuration.md) lists the keys.\n",
    ]
    for name, command in COMMANDS.items():
        parser = command_parser(name)
        parts.append(f"## darkroom {name}\n\n{sentence(command.summary)}\n")
        rows = [argument_row(action) for action in parser._actions if action.dest != "help"]
        if rows:
            parts.append(table(("argument", "meaning", "default"), rows))
        if command.takes_keys:
            parts.append("Configuration keys may follow.\n")
    return "\n".join(parts)


def argument_row(action: argparse.Action) -> tuple[str, str, str]:
    """Name, meaning and default of one argument."""
    metavar = action.metavar or (action.choices and "{" + ",".join(map(str, action.choices)) + "}") or ""
    shown = " ".join(metavar) if isinstance(metavar, tuple) else str(metavar)
    name = ", ".join(action.option_strings) or shown
    if action.option_strings and action.nargs != 0:
        name += f" {shown or action.dest.upper()}"
    text = action.help or ""
    default = "" if action.default in (None, [], False, argparse.SUPPRESS) else f"`{action.default}`"
    return f"`{name}`", text, default


# Configuration ----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Key:
    """One configuration key."""

    name: str
    type: str
    default: str
    meaning: str


def configuration_page() -> str:
    """Every configuration key, from the signatures and docstrings of the classes that take it."""
    parts = [
        "# Configuration\n",
        "A configuration is a YAML file with the sections below; any key can also be given on the command "
        "line, such as `--model.lr=3e-4`. Besides these there are `name`, the MLflow experiment's name, and "
        "`seed`, which moves weights, order, augmentation and dropout.\n",
        "## data\n",
        "`data.class_path` names the source. All sources take these keys:\n",
        keys_list("data", datamodules.ImageDataModule, skip={"seed"}),
    ]
    common = {key.name for key in keys("data", datamodules.ImageDataModule)}
    for name, source in classes_for("data").items():
        own = [key for key in keys("data", source) if key.name not in common and key.name != "data.seed"]
        parts.append(f"### {name}\n\n{sentence(summary_of(source))}\n")
        parts.append(definitions(own))
    parts.append("## model\n\n`model.class_path` is `ImageClassifier`.\n")
    parts.append(keys_list("model", lightning_modules.ImageClassifier))
    for section, settings in SETTINGS.items():
        parts.append(f"## {section}\n\n{sentence(summary_of(settings))}\n")
        parts.append(keys_list(section, settings))
    return "\n".join(parts)


def keys_list(section: str, cls: type, skip: typing.Collection[str] = ()) -> str:
    """The keys of a class as a list of definitions."""
    return definitions(key for key in keys(section, cls) if key.name.removeprefix(f"{section}.") not in skip)


def definitions(shown: typing.Iterable[Key]) -> str:
    """Keys with type, default and meaning; a list that a phone shows as well as a wide screen."""
    lines = []
    for key in shown:
        default = (
            f", default `{key.default}`"
            if key.default not in ("", "required")
            else key.default and ", required"
        )
        lines.append(f"`{key.name}` (`{key.type}`{default})\n: {key.meaning or 'The keys below.'}\n")
    return "\n".join(lines)


def keys(section: str, cls: type) -> Iterator[Key]:
    """The keys that a constructor takes: also those of its base, and those of nested settings."""
    seen: set[str] = set()
    for ancestor in cls.__mro__:
        constructor = vars(ancestor).get("__init__")
        if constructor is None or ancestor is object:
            continue
        meanings = argument_meanings(ancestor)
        hints = typing.get_type_hints(constructor)
        parameters = inspect.signature(constructor).parameters.values()
        for parameter in parameters:
            if parameter.name == "self" or parameter.kind is parameter.VAR_KEYWORD or parameter.name in seen:
                continue
            seen.add(parameter.name)
            hint = hints.get(parameter.name)
            name = f"{section}.{parameter.name}"
            yield Key(
                name, type_name(hint), default_text(parameter.default), meanings.get(parameter.name, "")
            )
            for nested in nested_settings(hint):
                yield from keys(name, nested)
        if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters):
            break


def nested_settings(hint: object) -> Iterator[type]:
    """The classes of settings that stand below a key."""
    if typing.get_origin(hint) not in (None, typing.Union, types.UnionType):
        return
    for each in (hint, *typing.get_args(hint)):
        if isinstance(each, type) and dataclasses.is_dataclass(each):
            yield each


def argument_meanings(cls: type) -> dict[str, str]:
    """What a class's docstring says of each argument, as one line of Markdown."""
    parsed = docstring_parser.parse(inspect.getdoc(cls) or "")
    return {each.arg_name: one_line(each.description or "") for each in parsed.params}


def summary_of(cls: type) -> str:
    return one_line((inspect.getdoc(cls) or "").partition("\n\n")[0])


def type_name(hint: object) -> str:
    """A type as a user writes it: no module names, alternatives of a literal in quotes."""
    text = inspect.formatannotation(hint) if hint is not None else ""
    text = re.sub(r"(?:\w+\.)+(\w+)", r"\1", text)
    text = re.sub(r"Optional\[(.*)\]", r"\1 | None", text)
    return text.replace("NoneType", "None").replace("None", "null")


def default_text(default: object) -> str:
    if default is inspect.Parameter.empty:
        return "required"
    if dataclasses.is_dataclass(default):
        return ""
    if default is None:
        return "null"
    return (
        str(default).lower()
        if isinstance(default, bool)
        else ""
        if "factory" in repr(default)
        else str(default)
    )


# Recipes ----------------------------------------------------------------------------------------


def recipes_page() -> str:
    """Every recipe with its claim."""
    rows = []
    for name in recipe_names():
        recipe = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
        claim = recipe.get("claim") or {}
        claimed = ", ".join(f"{metric} {goal['value']}" for metric, goal in claim.get("metrics", {}).items())
        data = recipe["data"]
        source = data if isinstance(data, str) else data["class_path"]
        rows.append((f"`{name}`", source, claimed or "none", claim.get("source", "")))
    return "\n".join(
        [
            "# Recipes\n",
            "Recipes ship with Darkroom and are named on the command line: `darkroom train digits/cnn`. "
            "`darkroom show RECIPE` prints one resolved, "
            "[reproductions](../../results/reproductions.md) says what they obtained.\n",
            table(("recipe", "data", "claim", "source of the claim"), rows),
        ]
    )


# Modules ----------------------------------------------------------------------------------------


def packages() -> list[Path]:
    """The folders that hold modules, in the order of their names."""
    found = [ROOT / "src" / "darkroom"]
    for name in PACKAGES:
        found += sorted({path.parent for path in (ROOT / name).rglob("*.py")})
    return found


def module_name(path: Path) -> str:
    if path.name == "darkroom":
        return "darkroom"
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(["darkroom", *(part for part in parts if part != "__init__")])


def first_sentence(path: Path) -> str:
    """The first paragraph of a file's docstring, on one line."""
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    return one_line(docstring.partition("\n\n")[0])


def modules_of(package: Path) -> list[Path]:
    if package.name == "darkroom":
        return []
    return sorted(path for path in package.glob("*.py") if path.name != "__init__.py")


def package_page(package: Path) -> str:
    """One package: its sentence, and its modules with what they define."""
    name = module_name(package)
    lines = [f"# {name}\n", first_sentence(package / "__init__.py"), ""]
    if package.name in ("darkroom", "networks", "recipes"):
        lines += directive(name)
    for path in modules_of(package):
        lines += [f"## {path.stem}\n", *directive(module_name(path))]
    return "\n".join(lines)


def directive(module: str) -> list[str]:
    return ["```{eval-rst}", f".. automodule:: {module}", "```", ""]


def python_index(names: list[str]) -> str:
    entries = "\n".join(names)
    return (
        "# Python modules\n\nPython knows one package, `darkroom`. Its `__init__` hands on the names that "
        "are promised; everything else may move.\n\n```{toctree}\n:maxdepth: 1\n\n" + entries + "\n```\n"
    )


def tree_page() -> str:
    """The tree of files with the first sentence of each, for the page on architecture."""
    lines: list[str] = []
    for name in PACKAGES:
        lines += branch(ROOT / name, "")
    return "---\norphan: true\n---\n\n# Tree\n\n```text\n" + "\n".join(lines) + "\n```\n"


def branch(folder: Path, indent: str) -> Iterator[str]:
    """A folder's line, its files', and those of its folders."""
    yield f"{indent}{folder.name}/  {first_sentence(folder / '__init__.py')}"
    inner = indent + "  "
    files = modules_of(folder)
    width = max((len(path.name) for path in files), default=0) + 2
    for path in files:
        yield f"{inner}{path.name:<{width}}{first_sentence(path)}"
    for each in sorted(path.parent for path in folder.glob("*/__init__.py")):
        yield from branch(each, inner)


# Text -------------------------------------------------------------------------------------------


def one_line(text: str) -> str:
    return " ".join(text.split())


def sentence(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".") + "."


def table(head: typing.Sequence[str], rows: typing.Iterable[typing.Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return (
        "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
        + "\n"
    )
