/* Threads with a sandbox each of one plugin: what they share is translation, links, the snapshot, reservations and
 * the watchdog.  Under ThreadSanitizer this is where a lock that is not there shows. */
#include "check.h"
#include "core/internal.h"

#include <pthread.h>

enum { THREADS = 4, ROUNDS = 600, FUNCTIONS = 96, SIZE = 16, FIRST = 0x10010 };

static vx_plugin *plugin;
static _Atomic unsigned running;

/* One that is interrupted while its thread calls; replaced under the lock. */
static pthread_mutex_t target_lock = PTHREAD_MUTEX_INITIALIZER;
static vx_sandbox *target;

/* Function k gives n + k, or n where that is 0: with a direct branch, which is linked. */
static void write_code(uint8_t *code) {
    static const uint8_t ready[] = {0x31, 0xc0, 0xcd, 0x30}; /* xor eax, eax; int $0x30 */
    memcpy(code, ready, sizeof ready);
    for (unsigned k = 0; k < FUNCTIONS; k++) {
        uint8_t function[SIZE] = {0x8b, 0x44, 0x24, 0x04, /* mov eax, [esp + 4] */
                                  0x85, 0xc0, 0x74, 0x03, /* test eax, eax; jz ret */
                                  0x83, 0xc0, (uint8_t)k, /* add eax, k */
                                  0xc3};
        memcpy(code + FIRST - 0x10000 + SIZE * k, function, SIZE);
    }
}

static vx_plugin *make_plugin(void) {
    static uint8_t code[VX_PAGE_SIZE];
    write_code(code);
    vx_segment segment = {0x10000, sizeof code, sizeof code, VX_PROT_READ | VX_PROT_EXEC, code, 0};
    vx_image image = {.segments = &segment, .count = 1, .entry = 0x10000};
    vx_plugin *made = NULL;
    CHECK(vx_plugin_create(&image, &made) == VX_OK);
    return made;
}

static void call(vx_sandbox *box, unsigned k, uint32_t n) {
    vx_result result = {0};
    vx_trap trap;
    vx_status status = vx_call(box, (vx_gaddr){FIRST + SIZE * k}, &n, 1, &result, &trap);
    if (status == VX_TRAP)
        CHECK(trap.kind == VX_TRAP_INTERRUPT);
    else
        CHECK(status == VX_OK && result.eax == (n == 0 ? 0 : n + k));
}

static void aim_at(vx_sandbox *box) {
    pthread_mutex_lock(&target_lock);
    target = box;
    pthread_mutex_unlock(&target_lock);
}

static void *use_sandboxes(void *number) {
    unsigned seed = (unsigned)(uintptr_t)number;
    vx_options options = {.memory = 1 << 20, .stack = 1 << 16, .timeout_ns = 20000000000u, .init_timeout_ns = 20000000000u};
    for (unsigned round = 0; round < ROUNDS; round++) {
        vx_sandbox *box = NULL;
        vx_trap trap;
        CHECK(vx_sandbox_create(plugin, &options, &box, &trap) == VX_OK);
        if (box == NULL)
            break;
        if (number == 0)
            aim_at(box);
        for (unsigned i = 0; i < 20; i++, seed = seed * 1103515245 + 12345)
            call(box, (seed >> 8) % FUNCTIONS, (seed >> 20) % 3);
        CHECK(vx_sandbox_reset(box) == VX_OK);
        call(box, 1, 1);
        if (number == 0)
            aim_at(NULL);
        vx_sandbox_free(box);
    }
    running--;
    return NULL;
}

/* What any thread may do at any time. */
static void *look_on(void *unused) {
    (void)unused;
    vx_place places[FUNCTIONS];
    vx_stats stats;
    while (running != 0) {
        vx_plugin_stats(plugin, &stats);
        CHECK(vx_plugin_places(plugin, places, FUNCTIONS) <= 3 * FUNCTIONS + 8);
        pthread_mutex_lock(&target_lock);
        if (target != NULL)
            vx_sandbox_interrupt(target);
        pthread_mutex_unlock(&target_lock);
        vx_signals_reclaim();
        os_sleep_ns(100000);
    }
    return NULL;
}

static void storm(void) {
    pthread_t threads[THREADS + 1];
    running = THREADS;
    for (uintptr_t i = 0; i <= THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, i < THREADS ? use_sandboxes : look_on, (void *)i) == 0);
    for (unsigned i = 0; i <= THREADS; i++)
        pthread_join(threads[i], NULL);
}

int main(void) {
    for (unsigned i = 0; i < 3 && failures == 0; i++) {
        plugin = make_plugin();
        storm();
        vx_plugin_unref(plugin);
    }
    return checked("threads");
}
