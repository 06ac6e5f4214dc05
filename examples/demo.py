"""Real codecs through ``import``, compared with the host's own libraries; then a hostile tour.

Exit status 1 if any output differs or any attack ends without an exception.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

import vxplug
from examples.codecs import build
from examples.codecs.inputs import Case, cases
from examples.codecs.table import CODECS
from vxplug import sdk

ATTACKS = (
    "write_to_null", "read_everywhere", "loop_for_ever", "exhaust_the_stack", "open_a_file",
    "enter_64_bit_mode", "run_data", "return_host_memory",
)
RUNS = 3


def build_all() -> None:
    with tqdm(CODECS, desc="building plugins", unit="codec") as bar:
        for name in bar:
            bar.set_postfix_str(name)
            build.plugin_path(name)


def timed(function: Callable[[], bytes]) -> tuple[float, bytes]:
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def difference(ours: bytes, theirs: bytes) -> str:
    if ours == theirs:
        return "identical"
    at = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b), min(len(ours), len(theirs)))
    return f"DIFFERS at byte {at} (lengths {len(ours)}, {len(theirs)})"


def compare(case: Case) -> str:
    """Both sides in turn, medians; the first run of each warms up."""
    function = getattr(build.import_codec(case.codec), case.call)
    sandboxed, native, verdict = [], [], ""
    for _ in range(RUNS + 1):
        seconds, ours = timed(lambda: function(case.encoded, case.argument))
        sandboxed.append(seconds)
        seconds, theirs = timed(lambda: case.host(case.encoded))
        native.append(seconds)
        verdict = difference(ours, theirs)
    ours_median, native_median = statistics.median(sandboxed[1:]), statistics.median(native[1:])
    print(f"{case.codec:9} {case.plain:>12,} {ours_median * 1e3:>11.1f} {native_median * 1e3:>11.1f}"
          f" {ours_median / native_median:>6.2f}  {verdict}")
    return verdict


def codec_table() -> bool:
    inputs = cases()
    print(f"\n{'codec':9} {'bytes':>12} {'sandbox ms':>11} {'native ms':>11} {'ratio':>6}")
    verdicts = [compare(case) for case in inputs]
    print(f"{sum(case.plain for case in inputs):,} bytes in all")
    return all(verdict == "identical" for verdict in verdicts)


def attack(box: vxplug.Sandbox, name: str) -> bool:
    try:
        box[name]()
    except vxplug.Error as error:
        print(f"{name:20} {type(error).__name__}: {error}")
        return True
    print(f"{name:20} RETURNED")
    return False


def hostile_tour() -> bool:
    print("\nhostile plugin:")
    with tempfile.TemporaryDirectory() as folder:
        path = sdk.build([Path(__file__).with_name("hostile.c")], Path(folder) / "hostile.vxm")
        with vxplug.open(path).sandbox(timeout=0.5) as box:
            return all([attack(box, name) for name in ATTACKS])


def main() -> int:
    vxplug.install(timeout=60.0, memory=512 << 20)
    build_all()
    good = codec_table()
    good = hostile_tour() and good
    last = cases(0.02)[0]
    alive = build.import_codec(last.codec).decompress(last.encoded, last.argument) == last.host(last.encoded)
    print("\nthe process is alive and decodes" if alive else "\nDECODES WRONGLY after the tour")
    return 0 if good and alive else 1


if __name__ == "__main__":
    sys.exit(main())
