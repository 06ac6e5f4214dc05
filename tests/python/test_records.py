"""Records are what frozen dataclasses of the same fields are."""

from __future__ import annotations

import copy
import dataclasses
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from vxplug.records import Record

ROOT = Path(__file__).parents[2]


class Point(Record, aside=("note",)):
    x: int
    y: int = 2
    note: str = ""


class Other(Record):
    x: int
    y: int = 2
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Oracle:
    x: int
    y: int = 2
    note: str = dataclasses.field(default="", compare=False, repr=False)


GIVEN = [((1,), {}), ((1, 3), {}), ((1, 3, "n"), {}), ((1,), {"y": 3}), ((), {"x": 1}), ((1,), {"note": "n"}), ((2, 2), {})]
WRONG = [((), {}), ((1, 2, "n", 4), {}), ((1,), {"x": 1}), ((1,), {"z": 1}), ((), {"y": 1})]


@pytest.mark.parametrize("values, named", GIVEN)
def test_as_a_dataclass(values, named):
    """Without it types of an interface could be taken for equal that are not, or the other way round."""
    point, oracle = Point(*values, **named), Oracle(*values, **named)
    assert (point.x, point.y, point.note) == (oracle.x, oracle.y, oracle.note)
    assert repr(point) == repr(oracle).replace("Oracle", "Point")
    for others, keywords in GIVEN:
        other = Point(*others, **keywords)
        assert (point == other) == (hash(point) == hash(other)) == (oracle == Oracle(*others, **keywords))
    assert pickle.loads(pickle.dumps(point)) == copy.copy(point) == point


@pytest.mark.parametrize("values, named", WRONG)
def test_refuses_as_a_dataclass(values, named):
    """Without it a field could be missing, and found missing only when it is read."""
    for cls in (Point, Oracle):
        with pytest.raises(TypeError):
            cls(*values, **named)


def test_classes_differ():
    """Without it a pointer type could stand for a numbers type of the same fields, where layouts are looked up."""
    assert Point(1, 2) != Other(1, 2)
    assert Point(1, 2) != (1, 2)


def test_nothing_changes():
    """Without it a type that was checked could become another one."""
    point = Point(1)
    with pytest.raises(AttributeError):
        point.x = 2
    with pytest.raises(AttributeError):
        del point.x


def test_nobody_knows_a_hash_before():
    """Without it a file that chooses its numbers could have thousands of types of one hash, each compared with all others."""
    code = "from tests.python.test_records import Point; print(hash(Point(1, 2)))"
    hashes = {subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, cwd=ROOT, env=os.environ | {"PYTHONHASHSEED": seed})
              .stdout for seed in "123"}
    assert len(hashes) == 3
