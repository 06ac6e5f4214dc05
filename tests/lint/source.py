"""The source tree as text, for rules that no compiler checks."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "csrc" / "core"
BUILT = {".git", ".hypothesis", ".tox", ".venv", ".cache", ".fuzz", ".pytest_cache", "__pycache__", "build", "dist"}
TEXT = {".py", ".pyi", ".c", ".h", ".S", ".def", ".md", ".toml", ".ini", ".txt", ".in", ""}
COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
STRING = re.compile(r'"(?:\\.|[^"\\\n])*"')


def code_of(text: str) -> str:
    """C without comments and string contents; lines keep their numbers."""
    blank = COMMENT.sub(lambda match: re.sub(r"[^\n]", " ", match.group()), text)
    return STRING.sub('""', blank)


def core_files(pattern: str = "*.[chS]") -> list[Path]:
    return sorted(CORE.glob(pattern))


def tree_files() -> list[Path]:
    """Every text file that belongs to the repository."""
    return sorted(
        path for path in ROOT.rglob("*")
        if path.is_file() and path.suffix in TEXT
        and not any(part in BUILT or part.endswith(".egg-info") for part in path.relative_to(ROOT).parts)
    )


def includes_of(path: Path) -> list[str]:
    return re.findall(r'^#\s*include\s+["<]([^">]+)[">]', path.read_text(), re.MULTILINE)


def rows_of(path: Path, macro: str) -> list[list[str]]:
    """The arguments of each row of a .def file, strings unquoted."""
    rows = re.findall(rf"^{macro}\((.*)\)", path.read_text(), re.MULTILINE)
    return [[field.strip().strip('"') for field in row.split(", ")] for row in rows]


def functions_of(text: str) -> list[tuple[str, int]]:
    """(name, lines of the body) of each function; its body closes with a brace in the first column."""
    found, lines = [], code_of(text).split("\n")
    for number, line in enumerate(lines):
        if not line.rstrip().endswith("{") or (line[0] == " " and ")" not in line):
            continue
        head = _head(lines, number)
        match = re.match(r"[A-Za-z_][^=;{}]*?(\w+)\([^;]*\)\s*\{\s*$", head)
        if match is None:
            continue
        end = next((i for i in range(number + 1, len(lines)) if lines[i].startswith("}")), number)
        found.append((match.group(1), end - number - 1))
    return found


def _head(lines: list[str], number: int) -> str:
    """The line, with those before it that it continues: a long parameter list, a brace of its own."""
    start = number
    while start > 0 and (lines[start].startswith(" ") or lines[start].strip() == "{"):
        start -= 1
    return " ".join(lines[start : number + 1])
