"""The repository's own sources, parsed once for the house rules."""

from __future__ import annotations

import ast
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


@dataclass(frozen=True, slots=True)
class Module:
    """One Python file.

    Attributes:
        name: dotted name, packages without `.__init__`.
        path: relative to the repository.
    """

    name: str
    path: Path
    text: str
    tree: ast.Module

    def imports(self) -> set[str]:
        """Dotted names that it imports anywhere, type-only imports included; `from a import b` gives `a.b`."""
        found: set[str] = set()
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    package = self.name.split(".")
                    if self.path.name != "__init__.py":
                        package = package[:-1]
                    package = package[: len(package) - node.level + 1]
                    base = ".".join([*package, *([base] if base else [])])
                found.update(f"{base}.{alias.name}" for alias in node.names)
        return found


@cache
def tracked(*patterns: str) -> tuple[Path, ...]:
    """Files that belong to the repository, relative to it; every file below it when it is no git checkout."""
    listed = subprocess.run(["git", "ls-files", "-z", "--", *patterns], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode == 0 and listed.stdout:
        names = (Path(name.decode()) for name in listed.stdout.split(b"\0") if name)
        return tuple(name for name in names if (ROOT / name).exists())
    skip = {".git", ".venv", ".build", "target", "_native", "__pycache__", "dist"}
    found = (path.relative_to(ROOT) for pattern in patterns for path in ROOT.rglob(pattern) if path.is_file())
    return tuple(path for path in found if not skip & set(path.parts))


@cache
def modules(package: str) -> tuple[Module, ...]:
    """Every tracked module of a top-level folder, parsed."""
    found: list[Module] = []
    for path in tracked("*.py"):
        if path.parts[0] != package:
            continue
        text = (ROOT / path).read_text(encoding="utf-8")
        parts = path.with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found.append(Module(name, path, text, ast.parse(text, str(path))))
    return tuple(found)


def every_module() -> tuple[Module, ...]:
    """Every tracked module, of whatever folder."""
    return tuple(module for folder in sorted({path.parts[0] for path in tracked("*.py")}) for module in modules(folder))
