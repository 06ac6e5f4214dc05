"""docs/linux-calls.md, made from the core's list: ``python -m tests.linux.page > docs/linux-calls.md``."""

from __future__ import annotations

from vxplug.linux.calls import ROWS, Row

SERVERS = {
    "core": "in C, for every guest", "policy-core": "in C, under a policy", "both": "under a policy", "policy": "under a policy",
    "either": "under a policy; a part of it for every plugin",
}
HEADER = """# Linux calls

Every i386 Linux system call (`csrc/core/linuxcalls.def`); this file is generated from it. A guest under a policy gets an
errno where a call is not served; a plugin without one ends with `PolicyError`. Numbers that are not listed answer ENOSYS.

| number | name | served |
|---|---|---|
"""


def _line(row: Row) -> str:
    return f"| {row.number} | {row.name} | {SERVERS.get(row.server, row.server)} |"


def page() -> str:
    return HEADER + "\n".join(_line(row) for row in ROWS.values()) + "\n"


if __name__ == "__main__":
    print(page(), end="")
