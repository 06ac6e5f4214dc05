/* What many threads ask of sandboxes at once; each function notices what must not have happened. */
#include <stdlib.h>
#include <vxplug.h>

VX_MODULE_DOC("For many threads.");

/* Objects in a table, so that an end too many is seen. */
enum { ITEMS = 65536 };
typedef struct item { int32_t value, alive; } item;
static item items[ITEMS];
static int32_t made, ended, mistakes, inside;

static void item_free(item *i) {
    mistakes += i->alive != 1;
    i->alive = 0;
    ended++;
}
VX_HANDLE(item, item_free);

VX_EXPORT item *item_new(int32_t value) {
    for (int32_t tries = 0; tries < ITEMS; tries++) {
        item *i = &items[made++ % ITEMS];
        if (i->alive)
            continue;
        *i = (item){value, 1};
        return i;
    }
    return NULL;
}
VX_EXPORT item *item_at(uint32_t number) { return items[number % ITEMS].alive ? &items[number % ITEMS] : NULL; }
VX_EXPORT int32_t item_value(const item *i) { return i->alive == 1 ? i->value : -1; }
VX_EXPORT int32_t items_alive(void) {
    int32_t count = 0;
    for (int32_t i = 0; i < ITEMS; i++)
        count += items[i].alive;
    return count;
}
VX_EXPORT int32_t mistakes_made(void) { return mistakes; }

/* Two threads in one sandbox would meet here. */
VX_EXPORT int32_t alone(int32_t rounds) {
    mistakes += inside++ != 0;
    for (volatile int32_t i = 0; i < rounds; i++)
        ;
    return --inside;
}
VX_EXPORT int32_t add(int32_t a, int32_t b) { return a + b; }
VX_EXPORT uint32_t sum(vx_view data) {
    uint32_t total = 0;
    for (size_t i = 0; i < data.len; i++)
        total += ((const uint8_t *)data.ptr)[i];
    return total;
}
VX_EXPORT void fill(vx_mut data, uint8_t value) {
    for (size_t i = 0; i < data.len; i++)
        ((uint8_t *)data.ptr)[i] = value;
}
VX_EXPORT int32_t apply(int32_t (*f)(int32_t), int32_t n) { return f(n) + 1; }
typedef struct four { int32_t values[4]; } four;
VX_EXPORT int32_t sum_four(const four *f) { return f->values[0] + f->values[1] + f->values[2] + f->values[3]; }
VX_EXPORT void bad(void) { vx_raise(VX_KeyError, "bad"); }
VX_EXPORT void crash(void) { *(volatile int32_t *)16 = 0; }
VX_EXPORT void spin(void) {
    for (;;)
        __asm__ volatile("");
}
