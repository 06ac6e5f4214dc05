"""Plugins, sandboxes and functions through pickles, into pools of processes and a Dask cluster."""

from __future__ import annotations

import copy
import gc
import hashlib
import pickle
import shutil
import subprocess
import sys
import textwrap
import threading

import pytest

import vxplug
from vxplug import pickling

GUEST = """
#include <vxplug.h>
static uint32_t calls;
VX_EXPORT int32_t add(int32_t a, int32_t b) { return a + b; }
VX_EXPORT uint32_t count(void) { return ++calls; }
VX_EXPORT vx_bytes twice(vx_view data);
VX_EXPORT uint32_t crash(void) { return *(volatile uint32_t *)0; }
VX_EXPORT void spin(void) { for (;;) __asm__ volatile(""); }
enum color { RED, GREEN, BLUE };
union number { int32_t i; float f; };
struct mark { enum color color; union number at; int32_t many[2]; };
VX_EXPORT enum color after(enum color c) { return (c + 1) % 3; }
VX_EXPORT struct mark moved(struct mark m) { m.at.i++; m.many[1] += m.many[0]; return m; }
"""
GUEST = GUEST.replace("VX_EXPORT vx_bytes twice(vx_view data);\n", "")


@pytest.fixture(scope="session")
def guest_path(build_plugin):
    return build_plugin(GUEST)


@pytest.fixture
def elsewhere(guest_path):
    """Runs a script in a process that has not seen the plugin, with a pickle on its standard input."""

    def run(pickled: bytes, script: str) -> subprocess.CompletedProcess[bytes]:
        code = "import pickle, sys, vxplug\n" + textwrap.dedent(script)
        return subprocess.run([sys.executable, "-c", code], input=pickled, capture_output=True, timeout=60)

    return run


LOAD_AND_CALL = "function = pickle.load(sys.stdin.buffer); print(function(2, 3), function.__name__)"


def test_a_function_finds_its_plugin_where_it_was(guest_path, elsewhere):
    """Pools on one machine share the disk: nothing but names has to travel."""
    pickled = pickle.dumps(vxplug.open(guest_path).sandbox().add)
    assert len(pickled) < 1000
    assert elsewhere(pickled, LOAD_AND_CALL).stdout == b"5 add\n"


def test_a_function_whose_plugin_is_elsewhere_says_so(guest_path, elsewhere, tmp_path):
    """Unpickling must not fail, pools would die or hang of it; the first use says what to do."""
    here = tmp_path / "gone.vxm"
    shutil.copy(guest_path, here)
    pickled = pickle.dumps(vxplug.open(here).sandbox().add)
    here.unlink()
    error = elsewhere(pickled, LOAD_AND_CALL).stderr.decode()
    digest = hashlib.sha256(guest_path.read_bytes()).hexdigest()
    assert f"vxplug.errors.Error: the plugin {here} with SHA-256 {digest} is not here" in error
    assert "plugin.portable()" in error
    assert elsewhere(pickled, "pickle.load(sys.stdin.buffer)").stderr == b""
    handed_on = "sys.stdout.buffer.write(pickle.dumps(pickle.load(sys.stdin.buffer)))"
    plugin = vxplug.open(guest_path)  # known here: what a scheduler could not use, it can have handed on
    assert pickle.loads(elsewhere(pickled, handed_on).stdout)(2, 3) == 5 and plugin.digest == digest


def test_a_file_that_changed_is_not_the_plugin(guest_path, elsewhere, tmp_path, build_plugin):
    """A newer build at the same path would compute something else without a word."""
    here = tmp_path / "changed.vxm"
    shutil.copy(guest_path, here)
    pickled = pickle.dumps(vxplug.open(here).sandbox().add)
    shutil.copy(build_plugin("#include <vxplug.h>\nVX_EXPORT int32_t add(int32_t a, int32_t b) { return 0; }\n"), here)
    assert b"is not here" in elsewhere(pickled, LOAD_AND_CALL).stderr


def test_a_portable_function_carries_its_code(guest_path, elsewhere, tmp_path):
    """Machines without the file: the code goes along, on request only."""
    here = tmp_path / "gone.vxm"
    shutil.copy(guest_path, here)
    plugin = vxplug.open(here).portable()
    here.unlink()
    pickled = pickle.dumps(plugin.sandbox().add)
    assert len(pickled) > guest_path.stat().st_size
    assert elsewhere(pickled, LOAD_AND_CALL).stdout == b"5 add\n"
    again = "function = pickle.load(sys.stdin.buffer); print(len(pickle.dumps(function)) > 100_000)"
    assert elsewhere(pickled, again).stdout == b"True\n"  # from worker to worker


def test_carried_code_is_what_its_name_says(guest_path, monkeypatch):
    """A pickle whose code and digest disagree would be registered under another plugin's name."""
    monkeypatch.setattr(pickling, "_find", lambda digest: None)
    with pytest.raises(vxplug.Error, match="is not the one it names"):
        pickling.load_plugin("0" * 64, None, guest_path.read_bytes())


def test_a_known_plugin_is_shared(guest_path):
    """Parsing and translating it again for each pickle would make pools slow."""
    plugin = vxplug.open(guest_path)
    again = pickle.loads(pickle.dumps(plugin))
    assert again is plugin
    assert copy.deepcopy(plugin)._core is plugin._core and plugin.portable()._core is plugin._core
    assert copy.copy(plugin) is plugin  # a twin's values would not know it, once the plugin is gone


def test_a_sandbox_comes_back_fresh_with_its_limits(guest_path):
    """Guest memory stays; limits must not, or a worker would run without them."""
    box = vxplug.open(guest_path).sandbox(memory=32 << 20, timeout=0.2, on_fault="poison")
    box.count(), box.count()
    again = pickle.loads(pickle.dumps(box))
    assert again.count() == 1 and box.count() == 3
    with pytest.raises(vxplug.GuestTimeout, match="0.2 s"):
        again.spin()
    with pytest.raises(vxplug.Error, match="poisoned"):
        again.count()


def test_functions_of_one_sandbox_stay_together(guest_path):
    """Two functions of one pickle that lost each other's state would surprise."""
    box = vxplug.open(guest_path).sandbox()
    first, second, third = pickle.loads(pickle.dumps((box.count, box.count, box.add)))
    assert (first(), second(), third(1, 1)) == (1, 2, 2)


def test_a_function_alone_keeps_its_sandbox(guest_path):
    """`f = plugin.sandbox().f` leaves no other reference to the sandbox."""
    function = vxplug.open(guest_path).sandbox().count
    assert function() == 1 and pickle.loads(pickle.dumps(function))() == 1


def test_a_closed_sandbox_refuses(guest_path):
    """It would come back open."""
    box = vxplug.open(guest_path).sandbox()
    box.close()
    with pytest.raises(vxplug.Error, match="closed"):
        pickle.dumps(box)


def test_a_callable_that_cannot_travel_says_so(guest_path):
    """Dropping it without a word would send guest output to the worker's terminal."""
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(vxplug.open(guest_path).sandbox(stdout=lambda data: None))


def test_imported_functions_pickle(guest_path, elsewhere, tmp_path):
    """Those of modules are what most programs have."""
    shutil.copy(guest_path, tmp_path / "picklable.vxm")
    script = f"""
        import sys, pickle, vxplug
        sys.path.insert(0, {str(tmp_path)!r})
        vxplug.install(timeout=3.0)
        import picklable
        sys.stdout.buffer.write(pickle.dumps(picklable.add))
    """
    made = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, timeout=60, check=True)
    show = LOAD_AND_CALL + "; print(function.__module__)"
    assert elsewhere(made.stdout, show).stdout == b"5 add\npicklable\n"


def test_values_of_a_plugins_types(guest_path, elsewhere, tmp_path):
    """They name their plugin, as functions do: their classes are nobody's module's.  Where the plugin is not, using
    them says so; unpickling does not."""
    here = tmp_path / "moved.vxm"
    shutil.copy(guest_path, here)
    plugin = vxplug.open(here)
    color, number, mark = (plugin.types[name] for name in ("color", "number", "mark"))
    values = color.BLUE, number(f=0.5), mark(color.RED, number(i=3), (4, 5))
    again = pickle.loads(pickle.dumps(values))
    assert again == values and [type(value) for value in again] == [color, number, mark] and again[0] is color.BLUE
    assert copy.deepcopy(values) == values and copy.copy(values[2]) == values[2]
    show = "print(pickle.load(sys.stdin.buffer))"
    assert elsewhere(pickle.dumps(values[2]), show).stdout.decode() == f"{values[2]}\n"
    lost = pickle.dumps(values)
    here.unlink()
    assert b"is not here" in elsewhere(lost, show).stdout
    twin = plugin.portable()
    assert elsewhere(pickle.dumps(values[2]), show).stdout.decode() == f"{values[2]}\n"
    del twin
    assert b"is not here" in elsewhere(pickle.dumps(values[2]), show).stdout
    del plugin
    pickling._kept.clear()
    gc.collect()
    with pytest.raises(vxplug.Error, match="a color cannot be pickled: its plugin is gone"):
        pickle.dumps(color.BLUE)


POOL = """
    import multiprocessing, sys
    from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
    import vxplug

    def main():
        box = vxplug.open(sys.argv[1]).sandbox(timeout=0.5)
        context = multiprocessing.get_context(sys.argv[2])
        with ProcessPoolExecutor(2, mp_context=context) as pool:
            assert list(pool.map(box.add, range(50), range(50))) == [2 * n for n in range(50)]
            mark = box.mark(box.color.GREEN, box.number(i=6), (1, 2))
            assert pool.submit(box.after, box.color.BLUE).result() is box.color.RED
            assert pool.submit(box.moved, mark).result() == box.moved(mark) != mark
            assert {f.result() for f in [pool.submit(box.count) for _ in range(10)]} == {1}  # each task a fresh one
            fault = pool.submit(box.crash).exception()
            assert fault.kind == "memory" and fault.traceback[0][0] == "crash", fault
            timeout = pool.submit(box.spin).exception()
            assert isinstance(timeout, vxplug.GuestTimeout) and "0.5 s" in str(timeout), timeout
        with context.Pool(2) as pool:
            assert pool.starmap(box.add, [(1, 2), (3, 4)]) == [3, 7]
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(box.add, range(200), range(200))) == [2 * n for n in range(200)]
        print("good")

    if __name__ == "__main__":
        main()
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_pools_of_processes(guest_path, tmp_path, method):
    """The commonest way to use more than one processor; fork and spawn fail in different ways."""
    script = tmp_path / "pool.py"
    script.write_text(textwrap.dedent(POOL))
    quiet = ("-W", "ignore:This process:DeprecationWarning")
    command = [sys.executable, *quiet, str(script), str(guest_path), method]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment())
    assert (done.returncode, done.stdout, done.stderr) == (0, "good\n", "")


def environment() -> dict[str, str]:
    """A script in another folder finds the package where this process did."""
    import os
    from pathlib import Path

    folder = str(Path(vxplug.__file__).parents[1])
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (folder, os.environ.get("PYTHONPATH"))))}


DASK = """
    import os, sys
    import vxplug
    from dask.distributed import Client, LocalCluster

    def seen(path, digest):
        from vxplug import pickling
        return os.path.exists(path), pickling._find(digest) is not None

    def main():
        path = sys.argv[1]
        plugin = vxplug.open(path)
        with LocalCluster(n_workers=2, threads_per_worker=2, processes=True, dashboard_address=None) as cluster, \\
                Client(cluster) as client:
            os.remove(path)
            assert set(client.run(seen, path, plugin.digest).values()) == {(False, False)}
            lost = client.submit(plugin.sandbox().add, 1, 2, pure=False).exception()
            assert isinstance(lost, Exception) and "is not here" in str(lost), repr(lost)
            box = plugin.portable().sandbox(timeout=2.0)
            assert client.submit(box.add, 1, 2).result() == 3
            assert client.gather(client.map(box.add, range(40), range(40))) == [2 * n for n in range(40)]
            mark = box.mark(box.color.GREEN, box.number(i=6), (1, 2))
            assert client.submit(box.after, box.color.BLUE).result() is box.color.RED
            assert client.submit(box.moved, mark).result() == box.moved(mark) != mark
            fault = client.submit(box.crash, pure=False).exception()
            assert fault.kind == "memory" and fault.traceback[0][0] == "crash", fault
            assert (False, True) in set(client.run(seen, path, plugin.digest).values())
        print("good")

    if __name__ == "__main__":
        main()
"""


def test_dask_moves_a_plugin_to_workers_that_never_saw_its_file(guest_path, tmp_path):
    """A real cluster's serialisation (cloudpickle, in other processes) is what users have."""
    pytest.importorskip("distributed", reason="dask[distributed] is not installed")
    plugin, script = tmp_path / "travels.vxm", tmp_path / "cluster.py"
    shutil.copy(guest_path, plugin)
    script.write_text(textwrap.dedent(DASK))
    done = subprocess.run([sys.executable, str(script), str(plugin)], capture_output=True, text=True, timeout=180,
                          env=environment(), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "good\n"), done.stderr[-3000:]


def test_a_finaliser_may_open_plugins_at_any_moment(build_plugin, monkeypatch):
    """It runs in the middle of whatever allocates: of the table that pickles look in, too, whose lock is held then."""
    path = build_plugin("#include <vxplug.h>\nVX_EXPORT int32_t one(void) { return 1; }\n")

    class Table(dict):
        def __setitem__(self, key, value):
            if not self:
                super().__setitem__(key, value)
                opened.append(vxplug.open(path))
            super().__setitem__(key, value)

    opened: list[vxplug.Plugin] = []
    monkeypatch.setattr(pickling, "_unhashed", Table())
    thread = threading.Thread(target=lambda: opened.append(vxplug.open(path)), daemon=True)
    thread.start()
    thread.join(20)
    assert len(opened) == 2


def test_plugins_that_are_gone_leave_nothing_for_pickles(build_plugin):
    """Without it a process that opens plugins all day, and pickles none, would keep a little of each."""
    path = build_plugin("#include <vxplug.h>\nVX_EXPORT int32_t one(void) { return 1; }\n")
    gc.collect()
    before = len(pickling._unhashed)
    for _ in range(5):
        vxplug.open(path)
    gc.collect()
    assert len(pickling._unhashed) == before
