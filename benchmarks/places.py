"""Where builds and results are kept."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "benchmarks" / "c"
CACHE = ROOT / ".cache" / "benchmarks"
IMPORTS = CACHE / "imports"
