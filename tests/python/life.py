"""A guest and a beginning for scripts that may kill or hang their process, and so run in one of their own."""

from __future__ import annotations

import subprocess

GUEST = """
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vxplug.h>
static uint32_t calls;
VX_EXPORT int32_t add(int32_t a, int32_t b) { return a + b; }
VX_EXPORT uint32_t count(void) { return ++calls; }
VX_EXPORT uint32_t crash(void) { return *(volatile uint32_t *)0; }
VX_EXPORT void spin(void) { for (;;) __asm__ volatile(""); }
VX_EXPORT void say(uint32_t lines) { while (lines--) puts("a line"); }
VX_EXPORT uint32_t work(uint32_t n) {
    uint32_t h = 1;
    for (uint32_t i = 0; i < n; i++) { h = h * 31 + i; __asm__ volatile("" : "+r"(h)); }
    return h;
}
VX_EXPORT vx_bytes fill(uint32_t size) {
    char *data = malloc(size ? size : 1);
    if (!data) return vx_raise(VX_MemoryError, "no room");
    memset(data, 1, size);
    return vx_take(data, size);
}
VX_EXPORT int32_t apply(int32_t (*function)(int32_t), int32_t x) { return function(x); }
VX_EXPORT void refuse(void) { vx_raise(VX_ValueError, "no"); }
"""
PRELUDE = """
import collections, faulthandler, gc, os, queue, random, signal, sys, threading, time, weakref
import vxplug
faulthandler.dump_traceback_later(170, exit=True)  # a deadlock says where
plugin = vxplug.open(sys.argv[1])
def ends(call, *arguments):
    try:
        call(*arguments)
    except vxplug.GuestEnd as error:
        return error.details['kind']
def usage():
    gc.collect()
    maps = open('/proc/self/maps').read().count('\\n')
    return maps, len(os.listdir('/proc/self/fd')), len(os.listdir('/proc/self/task')), len(gc.get_objects())
"""


def good(done: subprocess.CompletedProcess[str]) -> None:
    assert (done.returncode, done.stdout, done.stderr) == (0, "good\n", ""), done
