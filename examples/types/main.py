"""Imports shapes.vxm from this folder and uses each kind of type once."""

import array

import vxplug

vxplug.install(imports={"notify": lambda what, kind: print("plugin:", what, repr(kind))})
import shapes  # noqa: E402  the hook finds shapes.vxm

print(shapes.distance(shapes.point(0, 0), shapes.point(3, 4)))
print(shapes.divide(17, 5))
try:
    shapes.divide(1, 0)
except ValueError as error:
    print("ValueError:", error)

numbers = array.array("d", [1.0, 2.5])  # or a NumPy array
shapes.scale(numbers, 4.0)
print(numbers.tolist())
print(round(shapes.integrate(lambda x: x * x, 0.0, 3.0, 1000), 3))

with shapes.path_new() as path:
    for x, y in ((0, 0), (3, 0), (3, 4)):
        path.add(shapes.point(x, y))
    print(path.length(shapes.kind.OPEN))
    print(path.length(shapes.kind.CLOSED))
    for line in path.describe():
        print(line.decode(), end="")
print(path)
