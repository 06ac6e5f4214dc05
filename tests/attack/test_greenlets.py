"""Host functions that switch stacks, as greenlets do: calls of a thread then end in any order."""

from __future__ import annotations

import functools
import gc
import os
import random

import pytest

import vxplug

greenlet = pytest.importorskip("greenlet")

CODE = """
#include <vxplug.h>
VX_EXPORT int32_t call(int32_t (*callback)(int32_t), int32_t x) { return callback(x) + 1; }
VX_EXPORT int32_t spin(int32_t (*callback)(int32_t), int32_t x) {
    volatile uint32_t left = 30000000;
    int32_t got = callback(x);
    while (left) left--;
    return got + 1;
}
VX_EXPORT int32_t crash(int32_t (*callback)(int32_t), int32_t x) {
    *(volatile int32_t *)4 = callback(x);
    return 0;
}
VX_EXPORT int32_t deeper(int32_t (*callback)(int32_t), int32_t x) { return call(callback, x) + call(callback, x); }
"""


@pytest.fixture(scope="module")
def plugin(build_plugin) -> vxplug.Plugin:
    return vxplug.open(build_plugin(CODE))


class Caller:
    """A call in a greenlet of its own that waits in its host function until it is switched to again."""

    def __init__(self, function) -> None:
        self._main = greenlet.getcurrent()
        self._greenlet = greenlet.greenlet(self._run)
        self._function = function
        self.result: object = None

    def _run(self) -> None:
        try:
            self.result = self._function(lambda _: self._main.switch(), 0)
        except Exception as error:
            self.result = error

    def go_on(self, *value: int) -> object:
        self._greenlet.switch(*value)
        return self.result

    def end(self) -> None:
        self._greenlet.throw()

    @property
    def over(self) -> bool:
        return bool(self._greenlet.dead)


def test_calls_of_two_sandboxes_end_in_any_order(plugin):
    """Threat 39: a fault, and a tick, of the one that goes on belong to it, not to the one that began last."""
    for other in ("call", "crash", "spin"):
        first, second = plugin.sandbox(), plugin.sandbox()
        one, two = Caller(first.call), Caller(second[other])
        one.go_on(), two.go_on()
        assert one.go_on(10) == 11
        first.close()
        del first, one
        gc.collect()
        result = two.go_on(20)
        assert two.over and (isinstance(result, vxplug.GuestFault) if other == "crash" else result == 21)
        with plugin.sandbox() as third:
            assert third.call(lambda x: x, 4) == 5
        second.close()


def test_the_one_that_began_first_faults_first(plugin):
    """The frame of the last one is still there: the fault is not its."""
    with plugin.sandbox() as first, plugin.sandbox() as second:
        one, two = Caller(first.crash), Caller(second.spin)
        one.go_on(), two.go_on()
        assert isinstance(one.go_on(1), vxplug.GuestFault)
        assert two.go_on(2) == 3
        assert first.call(lambda x: x, 4) == second.call(lambda x: x, 4) == 5


@pytest.mark.parametrize("on_fault", ["reset", "poison"])
@pytest.mark.parametrize("function", ["call", "crash", "deeper"])
def test_crossing_calls_of_one_sandbox_are_errors(plugin, function, on_fault):
    """Threat 39: without it the call of the one would go on with the registers, and in the binding with the record, of
    the other."""
    with plugin.sandbox(on_fault=on_fault) as box:
        one, two = Caller(box.call), Caller(box[function])
        one.go_on(), two.go_on()
        assert "reverse order" in str(one.go_on(1)) and one.over
        with pytest.raises(vxplug.Error):  # while the other is open
            box.call(lambda x: x, 4)
        with pytest.raises(RuntimeError):
            box.close()
        assert isinstance(two.go_on(2), vxplug.Error) and two.over
        if on_fault == "poison":
            with pytest.raises(vxplug.Error, match="poisoned"):
                box.call(lambda x: x, 4)
            box.reset()
        assert box.call(lambda x: x, 4) == 5


def test_calls_of_one_sandbox_that_do_not_cross(plugin):
    """Without it what every nested call does would be refused in greenlets."""
    with plugin.sandbox() as box:
        one, two = Caller(box.call), Caller(box.deeper)
        one.go_on(), two.go_on(), two.go_on(3)
        assert two.go_on(4) == 3 + 1 + 4 + 1
        assert one.go_on(5) == 6


def test_three_calls_of_one_sandbox(plugin):
    """Whoever is last lets it go, and every one is told."""
    for order in ((0, 1, 2), (1, 0, 2), (0, 2, 1)):
        with plugin.sandbox() as box:
            calls = [Caller(box.call) for _ in range(3)]
            for call in calls:
                call.go_on()
            assert all(isinstance(calls[number].go_on(1), vxplug.Error) for number in order), order
            assert box.call(lambda x: x, 4) == 5


def test_a_greenlet_is_ended_where_it_waits(plugin):
    """What ends it is no Exception, and comes through the guest all the same."""
    with plugin.sandbox() as box, plugin.sandbox() as other:
        one, two = Caller(box.call), Caller(other.call)
        one.go_on(), two.go_on()
        one.end()
        assert one.over and two.go_on(2) == 3
        assert box.call(lambda x: x, 4) == 5


def test_a_thread_has_sixteen_open_calls(plugin):
    """Without it frames that are over in the middle would never be free again, or be free too early."""
    boxes = [plugin.sandbox() for _ in range(17)]
    calls = [Caller(box.call) for box in boxes]
    for call in calls[:16]:
        call.go_on()
    assert isinstance(calls[16].go_on(), RecursionError)
    assert [call.go_on(1) for call in calls[::2]][:8] == [2] * 8
    assert [call.go_on(1) for call in calls[1:16:2]] == [2] * 8
    assert boxes[16].call(lambda x: x, 4) == 5
    for box in boxes:
        box.close()


def test_fork_in_a_suspended_call(plugin):
    """Threat 28: the child has both calls, and their frames."""
    with plugin.sandbox() as first, plugin.sandbox() as second:
        one, two = Caller(first.call), Caller(second.crash)
        one.go_on(), two.go_on()
        child = os.fork()
        ended = one.go_on(1) == 2 and isinstance(two.go_on(1), vxplug.GuestFault)
        if child == 0:
            os._exit(0 if ended else 1)
        assert ended and os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


OTHERS = """
#include <vxplug.h>
#include <stdio.h>
#include <stdlib.h>
typedef struct counter { int32_t value; } counter;
static void counter_free(counter *c) { free(c); }
VX_HANDLE(counter, counter_free);
VX_EXPORT counter *counter_new(int32_t value) { counter *c = malloc(sizeof *c); c->value = value; return c; }
VX_EXPORT int32_t during(int32_t (*callback)(int32_t), counter *c) { return callback(c->value) + c->value; }
VX_EXPORT int32_t say(int32_t (*callback)(int32_t), int32_t x) {
    int32_t got = callback(x);
    printf("hello\\n");
    fflush(stdout);
    return got;
}
struct pair { int32_t first, second; };
VX_EXPORT struct pair make(int32_t x) { struct pair made = {x, x}; return made; }
VX_EXPORT int32_t twice(int32_t (*callback)(int32_t)) { return callback(1) + callback(2); }
"""


def deeper(levels: int, function) -> object:
    """What it gives, called so deep that frames lie where those of greenlets that wait were."""
    return function() if levels == 0 else functools.reduce(lambda *_: deeper(levels - 1, function), [None, None])


def test_handles_are_closed_while_a_greenlet_waits_in_a_call(build_plugin):
    """Without it close() would look for the handle in the record of the call, where other frames lie by then."""
    with vxplug.open(build_plugin(OTHERS)).sandbox() as box:
        used, other = box.counter_new(1), box.counter_new(2)
        one = Caller(lambda callback, _: box.during(callback, used))
        one.go_on()
        deeper(30, other.close)
        with pytest.raises(RuntimeError, match="a call that is running has it"):
            deeper(20, used.close)
        assert other.closed and not used.closed and one.go_on(5) == 6
        used.close()
        assert used.closed


def test_a_result_is_made_while_another_call_begins(build_plugin):
    """Without it the box would be free, or have no call, while the call that began meanwhile goes on in it."""
    with vxplug.open(build_plugin(OTHERS)).sandbox(stdout=lambda text: None) as box:
        other = Caller(box.say)

        class Switches:
            def __set__(self, made, value) -> None:
                other.go_on()

        box.pair.first = Switches()
        with pytest.raises(vxplug.Error, match="reverse order"):
            box.make(1)
        with pytest.raises(RuntimeError, match="running a call"):
            box.close()
        assert isinstance(other.go_on(1), vxplug.Error) and other.over
        del box.pair.first
        assert box.say(lambda x: x, 4) == 4


def test_a_result_is_made_while_a_call_is_over(build_plugin):
    """Without it the call that is over last, without guest code, would find a box that somebody else may have by then."""
    with vxplug.open(build_plugin(OTHERS)).sandbox() as box:
        main = greenlet.getcurrent()

        class Switches:
            def __set__(self, made, value) -> None:
                main.switch()

        def make() -> None:
            with pytest.raises(vxplug.Error, match="reverse order"):
                box.make(1)
            main.switch()

        box.pair.first = Switches()
        makers = [greenlet.greenlet(make) for _ in range(2)]
        for maker in makers:
            maker.switch()
        del box.pair.first
        makers[0].switch()
        with pytest.raises(RuntimeError, match="running a call"):
            box.reset()
        makers[1].switch()
        assert box.make(1).second == 1


NESTS = (
    lambda function: max([None], key=lambda _: function()),
    lambda function: sorted([None], key=lambda _: function()),
    lambda function: functools.reduce(lambda *_: function(), [None, None]),
    lambda function: next(filter(lambda _: function() or True, [None])),
)


def somewhere(dice: random.Random, function) -> None:
    """Calls it from a random place of the stack."""
    for nest in dice.choices(NESTS, k=dice.randrange(3, 30)):
        function = functools.partial(nest, function)
    function()


def test_what_a_waiting_call_lent_stays(build_plugin):
    """Without it a call whose record lies where that of the waiting one was would take its callbacks away."""
    dice = random.Random(1)
    with vxplug.open(build_plugin(OTHERS)).sandbox() as box:
        for _ in range(200):
            one = Caller(lambda callback, _: box.twice(callback))
            somewhere(dice, one.go_on)
            for _ in range(30):
                somewhere(dice, lambda: box.twice(lambda x: x))
            one.go_on(5)
            assert one.go_on(6) == 11
