"""What `import vxplug` leaves for later is there when it is asked for."""

from __future__ import annotations

import subprocess
import sys

import vxplug

# Modules that an application which only imports plugins does not need, each with much of the standard library behind it.
LATER = ("vxplug.aio", "vxplug.policy", "vxplug.program", "vxplug.trace", "importlib.abc", "hashlib", "pkgutil")


def _fresh(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_plain_import_leaves_the_rest():
    """Without it every program that imports a plugin would pay for what few use."""
    code = f"import sys; before = set(sys.modules); import vxplug; print(*(set({LATER!r}) & set(sys.modules) - before))"
    assert _fresh(code).split() == []


def test_every_public_name_is_there():
    """Without it a name could be promised and not found: by attribute, by from, by star, by dir."""
    assert set(vxplug.__all__) <= set(dir(vxplug))
    for name in vxplug.__all__:
        code = f"from vxplug import {name} as found; import vxplug; print(vxplug.{name} is found)"
        assert _fresh(code) == "True\n"
    code = "from vxplug import *; import vxplug; print(all(globals()[name] is getattr(vxplug, name) for name in vxplug.__all__))"
    assert _fresh(code) == "True\n"


def test_no_other_name_is():
    """Without it a misspelt name would come out as something else than AttributeError."""
    assert not hasattr(vxplug, "nothing")
