"""Where the time goes inside a plugin: samples at the watchdog's ticks, every 5 ms, as a flame graph.

::

    with plugin.sandbox() as box, vxplug.profile.Profile(box) as profile:
        box.decompress(data)
    profile.write_svg("profile.svg")
"""

from __future__ import annotations

import argparse
import html
import itertools
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from .classes import Stream
from .errors import Error, escape
from .interface import Export
from .plugin import Plugin, open as open_plugin
from .sandbox import MIB, Sandbox
from .words import mebibytes, seconds

__all__ = ["Profile", "add_command", "write_perf_map"]

SAMPLES_MAX = 100_000
PATIENCE = 20
BURST = 0.01  # seconds
FEW = 20  # samples: with as many, a function that has half of the time is shown with 39 to 61 % two times in three
WIDTH, ROW, MARGIN = 1200, 18, 10

_STYLE = "text{font:12px sans-serif}rect{stroke:#fff}g:hover rect{stroke:#000}"
_SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
    "<style>{style}</style><text x=\"10\" y=\"20\">{title}</text>{boxes}</svg>\n"
)
_BOX = (
    '<g><title>{full}</title><rect x="{x:.1f}" y="{y}" width="{w:.1f}" height="{h}" fill="{fill}"/>'
    '<text x="{tx:.1f}" y="{ty}">{short}</text></g>'
)


class Profile:
    """Samples of one sandbox, taken while the context manager is open.

    ``stacks`` counts the open calls of each sample, outermost first.
    """

    def __init__(self, box: Sandbox) -> None:
        self._plugin = box.plugin
        self._box = box._box
        self._raw: Counter[tuple[int, ...]] = Counter()
        self.samples = 0

    def __enter__(self) -> Profile:
        self._box.profile(self._take)
        return self

    def __exit__(self, *exception: object) -> None:
        self._box.profile(None)

    def _take(self, info: dict[str, Any]) -> None:
        if self.samples >= SAMPLES_MAX:
            return
        self.samples += 1
        callers = self._plugin.callers(info["registers"], info["stack_at"], info["stack"])
        self._raw[tuple(callers)] += 1

    @property
    def stacks(self) -> Counter[tuple[str, ...]]:
        names: dict[int, str] = {}
        found: Counter[tuple[str, ...]] = Counter()
        for addresses, count in self._raw.items():
            for address in addresses:
                if address not in names:
                    place = self._plugin.locate(address)
                    names[address] = place[0] if place else f"{address:#010x}"
            found[tuple(names[address] for address in reversed(addresses))] += count
        return found

    def folded(self) -> str:
        """One line for each stack, as flamegraph.pl and speedscope read them."""
        rows = [f"{';'.join(name.replace(';', ',') for name in stack)} {count}" for stack, count in self.stacks.items()]
        return "\n".join(sorted(rows)) + "\n" if rows else ""

    def svg(self) -> str:
        """The flame graph: a box is a function, as wide as its share of the time, on top of its caller."""
        root = _tree(self.stacks)
        depth = _depth(root)
        boxes = "".join(_draw(root, "all", MARGIN, WIDTH - 2 * MARGIN, 0, depth, max(root["count"], 1)))
        title = f"{self.samples} samples of {html.escape(escape(str(self._plugin.path)))}"
        return _SVG.format(width=WIDTH, height=(depth + 3) * ROW, style=_STYLE, title=title, boxes=boxes)

    def write_svg(self, path: str | os.PathLike[str]) -> None:
        Path(path).write_text(self.svg(), encoding="utf-8")


def _tree(stacks: Counter[tuple[str, ...]]) -> dict[str, Any]:
    root: dict[str, Any] = {"count": 0, "below": {}}
    for stack, count in stacks.items():
        node = root
        node["count"] += count
        for name in stack:
            node = node["below"].setdefault(name, {"count": 0, "below": {}})
            node["count"] += count
    return root


def _depth(node: dict[str, Any]) -> int:
    return 1 + max((_depth(below) for below in node["below"].values()), default=0)


def _draw(node: dict[str, Any], name: str, x: float, width: float, level: int, depth: int, total: int) -> list[str]:
    """The node's box and those above it; names are the plugin's, so they are escaped twice over."""
    y = (depth - level) * ROW + ROW
    label = html.escape(escape(name))
    shown = html.escape(escape(name)[: int(width / 7)]) if width > 20 else ""
    fill = f"hsl({(sum(map(ord, name)) * 7) % 50},80%,{60 + len(name) % 10}%)"
    full = f"{label} ({node['count']} of {total}, {100 * node['count'] / total:.1f} %)"
    rows = [_BOX.format(full=full, x=x, y=y, w=width, h=ROW - 1, fill=fill, tx=x + 3, ty=y + 13, short=shown)]
    for child, below in sorted(node["below"].items()):
        share = width * below["count"] / node["count"]
        rows += _draw(below, child, x, share, level + 1, depth, total)
        x += share
    return rows


def write_perf_map(plugin: Plugin, path: str | os.PathLike[str] | None = None) -> Path:
    """The names of translated code for Linux ``perf``, in /tmp/perf-PID.map; call it before the process ends."""
    target = Path(path or f"/tmp/perf-{os.getpid()}.map")
    rows = []
    for guest, host, size in plugin._core.places():
        place = plugin.locate(guest)
        rows.append(f"{host:x} {size:x} vxm:{place[0] if place else hex(guest)}\n")
    # A new file, not what another user of /tmp may have put there.
    target.unlink(missing_ok=True)
    with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.writelines(rows)
    return target


class _Over(Exception):
    """Ends the call in which a tick finds that the time for samples is over, as the exception of any sampler does."""


class _Timed(Profile):
    """Samples until the time is over.  A function that is hardly ever met at a tick gets more of it, within reason."""

    def __init__(self, box: Sandbox, seconds: float) -> None:
        super().__init__(box)
        self._seconds, self._start = seconds, time.monotonic()
        self.calls = 0
        self._result: Any = None  # a stream that is forgotten while its sandbox is open runs to its end first

    @property
    def over(self) -> bool:
        return time.monotonic() - self._start >= (self._seconds if self.samples else PATIENCE * self._seconds)

    def _take(self, info: dict[str, Any]) -> None:
        super()._take(info)
        if self.over:
            raise _Over

    def repeat(self, function: Callable[..., Any], arguments: list[Any]) -> None:
        """Call it again and again, short ones in bursts: between calls, at the clock, no tick meets the plugin's code."""
        burst = 1
        with suppress(_Over):
            while not self.over:
                start = time.monotonic()
                for _ in itertools.repeat(None, burst):
                    self.calls += 1
                    self._result = function(*arguments)
                    if isinstance(self._result, Stream):
                        self._drain(self._result)
                if time.monotonic() - start < BURST:
                    burst *= 2

    def _drain(self, stream: Stream) -> None:
        """Its body runs for its pieces only."""
        for _ in stream:
            if self.over:
                raise _Over


def _sample(profile: _Timed, box: Sandbox, export: Export, arguments: list[Any]) -> int:
    """The status of Ctrl-C is that of every command, but what was sampled before is shown."""
    from .cli import named

    try:
        with profile, named(export):
            profile.repeat(box[export.name], arguments)
    except KeyboardInterrupt:
        return 130
    return 0


def _profile(options: argparse.Namespace) -> int:
    from .cli import call_arguments

    plugin = open_plugin(options.file)
    export, arguments = call_arguments(plugin, options.function, options.arguments)
    with plugin.sandbox(memory=options.memory, timeout=None, output=None, stdout=lambda data: None) as box:
        profile = _Timed(box, options.seconds)
        status = _sample(profile, box, export, arguments)
    if profile.samples:
        _report(profile, plugin, options)
    elif status == 0:
        raise Error("no samples: the function is too short; give --seconds more")
    return status


def _report(profile: _Timed, plugin: Plugin, options: argparse.Namespace) -> None:
    if options.perf_map:
        print(write_perf_map(plugin), file=sys.stderr if options.json else sys.stdout)
    profile.write_svg(options.output)
    if options.folded:
        Path(options.folded).write_text(profile.folded(), encoding="utf-8")
    _show(profile, options)


def _show(profile: _Timed, options: argparse.Namespace) -> None:
    leaves: Counter[str] = Counter()
    for stack, count in profile.stacks.items():
        leaves[stack[-1]] += count
    if options.json:
        functions = [{"name": name, "samples": count} for name, count in leaves.most_common()]
        print(json.dumps({"samples": profile.samples, "calls": profile.calls, "svg": options.output, "functions": functions}, indent=2))
        return
    for name, count in leaves.most_common(10):
        print(f"{100 * count / profile.samples:5.1f} %  {escape(name)}")
    print(f"{profile.samples} samples in {profile.calls} calls: {options.output}")
    if profile.samples < FEW:
        print(f"Fewer than {FEW} samples: the percentages say little. Give --seconds more, or the function more to do.")


def add_command(commands: Any) -> None:
    profile = commands.add_parser("profile", help="call a function for a while; a flame graph of where its time goes")
    profile.add_argument("-o", dest="output", default="profile.svg", metavar="SVG", help="(default: %(default)s)")
    profile.add_argument("--folded", metavar="FILE", help="stacks as text, too")
    profile.add_argument("--perf-map", action="store_true", help="write /tmp/perf-PID.map, too")
    profile.add_argument("--seconds", type=seconds, default=2.0,
                         help="call again and again for so long; the call that runs then is ended (default: %(default)s)")
    profile.add_argument("--memory", type=mebibytes, default=256 * MIB, metavar="MIB")
    profile.add_argument("--json", action="store_true", help="samples of each function, for programs")
    profile.add_argument("file")
    profile.add_argument("function", metavar="FUNC")
    profile.add_argument("arguments", nargs="*", default=[], metavar="ARG")
    profile.set_defaults(run=_profile)
