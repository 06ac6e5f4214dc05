"""Imports hello.vxm from this folder and calls it."""

import vxplug

vxplug.install()
import hello  # noqa: E402  the hook finds hello.vxm

print(hello.__doc__)
print(hello.reverse(b"sandbox"))
