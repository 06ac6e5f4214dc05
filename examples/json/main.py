"""Builds simdjson, C++ with exceptions, from its unmodified source distribution, and reads JSON in a sandbox."""

from __future__ import annotations

from pathlib import Path

import vxplug
from examples.codecs.build import CACHE, unpack
from vxplug import sdk

HERE = Path(__file__).resolve().parent


def plugin_path() -> Path:
    """The plugin, built if it is not there."""
    target = CACHE / "plugins" / "json.vxm"
    if not target.is_file():
        upstream = unpack("pysimdjson") / "simdjson"
        target.parent.mkdir(parents=True, exist_ok=True)
        sdk.build([HERE / "simdjson_plugin.cc", upstream / "simdjson.cpp"], target, include=[upstream], debug="beside")
    return target


def main() -> None:
    document = b'{"planets": [{"name": "Mars", "moons": ["Phobos", "Deimos"]}]}'
    with vxplug.open(plugin_path()).sandbox(timeout=5.0) as box:
        print(box.minify(document).decode())
        print(box.at(document, "/planets/0/moons/1").decode())
        for broken, pointer in ((b'{"a": 1', "/a"), (document, "/stars"), (document, "/planets/7")):
            try:
                box.at(broken, pointer)
            except (ValueError, LookupError) as error:
                print(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
