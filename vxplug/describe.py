"""``vxplug inspect``: what a plugin exports, of what it is made, and what it needs."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from .classes import MODULE
from .elf import PT_LOAD, SHNUM_MAX, Elf
from .errors import Error, escape
from .interface import Export, described
from .metered import Metered
from .plugin import Plugin, open as open_plugin

__all__ = ["add_command", "describe"]

# Reads by pyelftools, which takes a name to the end of the file if need be: one without an end may be as long as
# the file, and every section may have it.  4096 sections whose names end take some 100,000.
READS_MAX = 200_000


def _export(export: Export) -> dict[str, Any]:
    return {
        "name": export.name, "address": export.address, "prototype": export.prototype,
        # A plugin that nobody has imported has classes without a module.
        "signature": f"{export.name}{export.signature}".replace(f"{MODULE}.", ""), "doc": export.doc,
    }


def _segments(data: bytes) -> list[dict[str, Any]]:
    return [
        {"address": s.vaddr, "size": s.memsz, "in_file": s.filesz,
         "rights": "".join(c if s.flags & bit else "-" for c, bit in zip("rwx", (4, 2, 1), strict=True))}
        for s in Elf(data).segments if s.type == PT_LOAD
    ]


def _sections(data: bytes) -> list[dict[str, Any]]:
    """The loader does not believe in sections, so they may lie: they are shown, not used.  Broken ones are none."""
    from elftools.elf.elffile import ELFFile

    try:
        elf = ELFFile(Metered(data, [READS_MAX]))
        found = [elf.get_section(number) for number in range(1, min(elf.num_sections(), SHNUM_MAX))]
        return [{"name": escape(s.name), "address": s.header.sh_addr, "size": s.header.sh_size} for s in found]
    except Exception:  # noqa: BLE001  pyelftools raises many kinds, and each means the same
        return []


def _debug(plugin: Plugin, sections: list[dict[str, Any]]) -> str:
    if any(section["name"] == ".debug_info" for section in sections):
        return "inside"
    return "beside" if plugin.path and os.path.isfile(plugin.path + ".debug") else "none"


def describe(plugin: Plugin) -> dict[str, Any]:
    """All there is to know without running it, in types that JSON has."""
    segments, sections = _segments(plugin.data), _sections(plugin.data)
    return {
        "file": plugin.path, "size": len(plugin.data), "sha256": plugin.digest, "doc": plugin.doc,
        "exports": [_export(export) for export in plugin.exports.values()],
        "imports": [{"name": i.name, "prototype": i.prototype} for i in plugin.imports.values()],
        "types": sorted(plugin.types),
        "segments": segments, "sections": sections, "debug": _debug(plugin, sections),
        "needs": {"memory": sum(segment["size"] for segment in segments), "interface": plugin.interface_version},
    }


def _show_exports(found: dict[str, Any]) -> None:
    if found["doc"]:
        print(found["doc"], end="\n\n")
    for export in found["exports"]:
        print(f"{export['address']:#010x}  {export['signature']}\n            {export['prototype']}")
        if export["doc"]:
            print("            " + export["doc"].replace("\n", "\n            "))
    if found["imports"]:
        print("\nneeds of the host, as sandbox(imports={…}):")
    for function in found["imports"]:
        print(f"            {described(function['name'], function['prototype'])}")


def _show_parts(found: dict[str, Any]) -> None:
    print(f"\n{found['size']:,} bytes, SHA-256 {found['sha256']}")
    needs = found["needs"]
    print(f"needs {needs['memory']:,} bytes of memory to load, interface version {needs['interface']}; "
          f"debug information: {found['debug']}")
    for segment in found["segments"]:
        print(f"  {segment['address']:#010x}  {segment['rights']}  {segment['size']:>10,} bytes in memory")
    for section in found["sections"]:
        print(f"  {section['address']:#010x}       {section['size']:>10,}  {section['name']}")


def _fault(options: argparse.Namespace) -> int:
    from .report import decode_report, describe_report

    try:
        report = decode_report(Path(options.fault).read_bytes())
    except ValueError as error:
        raise Error(f"{options.fault}: not a fault report: {error}") from None
    plugin = open_plugin(options.file) if options.file else None
    print(json.dumps(report, indent=2) if options.json else describe_report(report, plugin))
    return 0


def _inspect(options: argparse.Namespace) -> int:
    if options.fault:
        return _fault(options)
    if options.file is None:
        options.refuse("which FILE?")
    found = describe(open_plugin(options.file))
    if options.json:
        json.dump(found, sys.stdout, indent=2)
        print()
        return 0
    _show_exports(found)
    if options.all:
        _show_parts(found)
    return 0


def add_command(commands: Any) -> None:
    inspect = commands.add_parser("inspect", help="show what a plugin exports")
    inspect.add_argument("file", nargs="?")
    inspect.add_argument("--all", action="store_true", help="segments, sections and needs too")
    inspect.add_argument("--fault", metavar="REPORT", help="show a saved fault report; FILE then gives it names")
    inspect.add_argument("--json", action="store_true", help="everything, for programs")
    inspect.set_defaults(run=_inspect, refuse=inspect.error)
