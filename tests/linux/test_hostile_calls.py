"""Any number with any arguments: the host answers with an errno, a signal or the end of the guest, never an error of its own."""

from __future__ import annotations

import os
import random
import threading

import pytest

import vxplug
from vxplug import Directory, LinuxPolicy

from .test_files import tree

SOURCE = r"""
#include <vxplug.h>
static char page[8192] __attribute__((aligned(4096)));
VX_EXPORT uint32_t where(void) { return (uint32_t)page; }
VX_EXPORT void put(vx_view data) { for (size_t i = 0; i < data.len && i < sizeof page; i++) page[i] = ((const char *)data.ptr)[i]; }
__attribute__((naked)) static int32_t enter(uint32_t n, uint32_t b, uint32_t c, uint32_t d, uint32_t s, uint32_t i, uint32_t p) {
    __asm__("pushl %ebx\n pushl %esi\n pushl %edi\n pushl %ebp\n"
            "movl 20(%esp), %eax\n movl 24(%esp), %ebx\n movl 28(%esp), %ecx\n movl 32(%esp), %edx\n"
            "movl 36(%esp), %esi\n movl 40(%esp), %edi\n movl 44(%esp), %ebp\n int $0x80\n"
            "popl %ebp\n popl %edi\n popl %esi\n popl %ebx\n ret");
}
VX_EXPORT int32_t call(uint32_t n, uint32_t b, uint32_t c, uint32_t d, uint32_t s, uint32_t i, uint32_t p) {
    return enter(n, b, c, d, s, i, p);
}
"""
# Where the handler is nothing is mapped, so that it earns the signal again, and no instruction of the guest's runs any more.
FAULTING = r"""
#include <vxplug.h>
static struct __attribute__((packed)) { uint32_t handler, flags, restorer; uint64_t mask; } action = {0x100, 0x40000000, 0, 0};
VX_EXPORT void fault_on(void) {
    int32_t done;
    __asm__ volatile("int $0x80" : "=a"(done) : "0"(174), "b"(11), "c"(&action), "d"(0), "S"(8) : "memory");
    *(volatile int *)16 = done;
}
"""
ENDS = (vxplug.GuestFault, vxplug.GuestExit, vxplug.GuestTimeout)
# Their effect is to wait, which the time limit ends; drawn less often.
WAITING = {29, 142, 162, 168, 179, 240, 267, 308, 309, 407, 413, 414}


@pytest.fixture(scope="module")
def plugin(build_plugin):
    return vxplug.open(build_plugin(SOURCE))


@pytest.mark.parametrize("seed", range(3))
def test_random_calls(plugin, tmp_path, seed):
    """Without it some number, pointer or length could raise in the host, or reach outside the folder."""
    pick = random.Random(seed)
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir(), outside.mkdir()
    (outside / "file").write_bytes(b"untouched")
    plugin.sandbox().close()  # leaves the plugin's snapshot
    before, descriptors = tree(outside), len(os.listdir("/proc/self/fd"))
    policy = LinuxPolicy(directories={"/": Directory(inside, True)}, time=True, random=True, terminal=True, storage=1 << 20)
    served = 0
    with plugin.sandbox(linux=policy, timeout=0.2, stdout=bytes, stderr=bytes, memory=32 << 20, stack=1 << 20) as box:
        page = box.where()
        interesting = [0, 1, 2, 3, 4, 5, 7, 0xFFFFFF9C, 0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 4096, page, page, page, page + 64, page + 4000,
                       page + 8190, 0xFFFDFFFE, 0xFFFE0000, 0x10000]
        for _ in range(2500):
            number = pick.randrange(460)
            if number in WAITING and pick.random() < 0.9:
                continue
            if pick.random() < 0.3:
                text = pick.choice([b"a", b"/a/b", b"../outside/file", b"..", b"", b"x" * 5000, pick.randbytes(200)])
                box.put(text + bytes(1) + pick.randbytes(64))
            words = [pick.choice(interesting) if pick.random() < 0.8 else pick.getrandbits(32) for _ in range(6)]
            try:
                box.call(number, *words)
                served += 1
            except ENDS:
                continue
    assert served > 1500
    assert tree(outside) == before
    assert len(os.listdir("/proc/self/fd")) <= descriptors


def test_a_handler_that_is_nowhere(build_plugin):
    """Without it signals could follow one another with nobody asking for the time, nor letting another thread run."""
    turns = []
    limits = {"memory": 520 << 20, "stack": 512 << 20, "timeout": 0.2}
    with vxplug.open(build_plugin(FAULTING)).sandbox(linux=LinuxPolicy(basics=True), **limits) as box:
        other = threading.Timer(0.05, lambda: turns.append(in_call))
        in_call = True
        other.start()
        with pytest.raises(vxplug.GuestTimeout):
            box.fault_on()
        in_call = False
    other.join()
    assert turns == [True]
