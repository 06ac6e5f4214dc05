"""What guests leave behind in the processor, when their code has nothing that makes the host look at it all:
one plugin, and so one code cache, for each attack.  Prints the attacks that changed something."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Callable

import vxplug

from .run_corpus import HostState

FE_UPWARD = 0x800  # x87's and MXCSR's own control bits are set by it, so that neither is at its default
ATTACKS: dict[str, Callable[[vxplug.Sandbox], object]] = {
    **{name: lambda box, name=name: box[name]() for name in (
        "nothing", "direction_left_set", "id_left_set", "id_left_at_fault", "ud2", "hostcall_unknown", "vectors",
        "vectors_at_fault")},
    "endless": lambda box: box.endless(),
    "direction_in_callback": lambda box: box.direction_in_callback(lambda: None),
}


def main() -> None:
    if ctypes.CDLL("libm.so.6").fesetround(FE_UPWARD) != 0:
        raise OSError("no rounding upward")
    for name, attack in ATTACKS.items():
        with vxplug.open(sys.argv[1]).sandbox(timeout=0.1) as box:
            host = HostState()
            for _ in range(3):  # the first time the guest leaves to have its code translated, and is entered anew
                with contextlib.suppress(vxplug.Error):  # how it ends is not the question
                    attack(box)
                if host.changed():
                    print(name, host.changed())


if __name__ == "__main__":
    main()
