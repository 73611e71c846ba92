"""The import table of docs/ARCHITECTURE.md is the truth about the package."""

import ast
import re
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "orionagent"
ROW = re.compile(r"^\| `(?P<module>[a-z_/]+)` \|[^|]+\|(?P<floors>[^|]*)\|(?P<third>[^|]*)\|$", re.MULTILINE)
PURE = (
    "answers",
    "backoff",
    "metrics/mounts",
    "metrics/rates",
    "wire",
    "render",
    "text",
    "scripts/alerts",
    "scripts/endings",
    "scripts/levels",
    "scripts/lines",
    "scripts/redact",
    "scripts/search",
    "scripts/structured",
    "scripts/traces",
    "scripts/lifecycle",
    "scripts/order",
    "ipc/frames",
    "ipc/protocol",
    "ipc/access",
)
IMPURE_IMPORTS = {"gevent", "os", "select", "socket", "subprocess", "threading", "time"}


def read_cell(cell: str) -> set[str]:
    return {word.strip() for word in cell.replace("`", "").split(",") if word.strip()}


def read_table() -> dict[str, tuple[set[str], set[str]]]:
    """Return module -> (own modules it may import, third-party packages it may import), in table order."""
    text = (REPOSITORY / "docs" / "ARCHITECTURE.md").read_text(encoding="utf-8")
    return {row["module"]: (read_cell(row["floors"]), read_cell(row["third"])) for row in ROW.finditer(text)}


def module_name(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").as_posix()


def module_paths() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if path.name not in ("__init__.py", "__main__.py")]


def imported_names(path: Path) -> set[str]:
    """Return the full dotted names a file imports, wherever in the file it does so."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def own_module(name: str) -> str | None:
    """Return the table's name of the own module that a dotted name means; None for anything foreign."""
    parts = name.split(".")
    if parts[0] != "orionagent":
        return None
    for length in range(len(parts), 1, -1):
        candidate = "/".join(parts[1:length])
        if (PACKAGE / f"{candidate}.py").is_file():
            return candidate
        if (PACKAGE / candidate).is_dir() and length == len(parts):
            return candidate
    return "__init__"


@pytest.mark.parametrize("path", module_paths(), ids=module_name)
def test_a_module_imports_only_what_the_table_allows(path: Path) -> None:
    table = read_table()
    name = module_name(path)
    assert name in table, f"docs/ARCHITECTURE.md has no row for {name}"
    floors, third = table[name]
    for imported in imported_names(path):
        own = own_module(imported)
        top = imported.split(".")[0]
        if own is not None:
            assert own == "__init__" or own in floors or own == name, f"{name} may not import {own}"
        elif top not in sys.stdlib_module_names:
            assert top in third, f"{name} may not import {top}"


def test_the_table_names_only_modules_that_exist_and_stands_in_floor_order() -> None:
    seen: set[str] = set()
    for name, (floors, _) in read_table().items():
        assert (PACKAGE / f"{name}.py").is_file(), f"{name} has a row but no file"
        assert floors <= seen, f"{name} imports what stands below it: {sorted(floors - seen)}"
        seen.add(name)


@pytest.mark.parametrize("name", PURE)
def test_pure_modules_touch_neither_clock_nor_system(name: str) -> None:
    path = PACKAGE / f"{name}.py"
    if not path.is_file():
        pytest.fail(f"{name} is missing")
    tops = {imported.split(".")[0] for imported in imported_names(path)}
    assert not tops & IMPURE_IMPORTS


def test_scripts_and_logs_never_meet() -> None:
    table = read_table()
    for name, (floors, _) in table.items():
        if name.startswith("scripts/"):
            assert not any(floor.startswith("logs/") for floor in floors)
        if name.startswith("logs/"):
            assert not any(floor.startswith("scripts/") for floor in floors)
