/* A tenant who leaves what a sandbox can hold in every place there is. */
#include <vxplug.h>
#include <stdlib.h>
#include <string.h>

#define PAGE 4096u
#define NONE 0
#define READ 1
#define RW 3
#define RX 5
#define RWX 7
#define FIXED 0x10
#define SECRET "the last tenant's"

static int32_t system_call(uint32_t n, uint32_t b, uint32_t c, uint32_t d, uint32_t s) {
    int32_t result;
    __asm__ volatile("int $0x80" : "=a"(result) : "0"(n), "b"(b), "c"(c), "d"(d), "S"(s), "D"(-1) : "memory");
    return result;
}
static int32_t protect(const void *at, uint32_t size, uint32_t prot) { return system_call(125, (uint32_t)at, size, prot, 0); }
static int32_t unmap(const void *at, uint32_t size) { return system_call(91, (uint32_t)at, size, 0, 0); }
static char *map(uint32_t at, uint32_t size, uint32_t prot) {
    return (char *)system_call(192, at, size, prot, 0x22 | (at ? FIXED : 0));
}
static int32_t discard(const void *at, uint32_t size) { return system_call(219, (uint32_t)at, size, 4, 0); }

static char data[2 * PAGE] __attribute__((aligned(4096))) = "as built";
static char zeros[64 * PAGE] __attribute__((aligned(4096)));
static const char constants[2 * PAGE] __attribute__((aligned(4096))) = "constant";
/* By the constructor: part of the snapshot.  `sealed` is beyond all that the guest may write. */
static char *const prepared = (char *)0x20000000, *const sealed = (char *)0x30000000;

static void put_code(char *at, uint32_t value) { at[0] = (char)0xb8, memcpy(at + 1, &value, 4), at[5] = (char)0xc3; }
static uint32_t run(const char *at) { return ((uint32_t (*)(void))at)(); }

__attribute__((constructor)) static void prepare(void) {
    map((uint32_t)prepared, 8 * PAGE, RW);
    strcpy(prepared + PAGE, "prepared");
    put_code(prepared + 6 * PAGE, 7);
#ifdef CODE
    protect(prepared + 6 * PAGE, PAGE, RWX);
#endif
    strcpy(map((uint32_t)sealed, PAGE, RW), "sealed");
    protect(sealed, PAGE, READ);
}

VX_EXPORT void write_data(void) { memcpy(data + PAGE, SECRET, 17), memcpy(zeros + 60 * PAGE, SECRET, 17); }
VX_EXPORT void write_prepared(void) { memcpy(prepared + PAGE, SECRET, 17), memcpy(prepared + 5 * PAGE, SECRET, 17); }
VX_EXPORT void write_stack(void) {
    volatile char deep[1 << 20];
    for (uint32_t i = 0; i < sizeof deep; i += PAGE)
        deep[i] = 's';
}
VX_EXPORT void write_heap(void) {
    for (uint32_t i = 0; i < 50; i++)
        memcpy(malloc(1000), SECRET, 17);
}
VX_EXPORT void write_mappings(void) {
    for (uint32_t i = 0; i < 4; i++)
        memcpy(map(0, 3 * PAGE, RW), SECRET, 17);
}
VX_EXPORT void write_islands(void) { /* more places than are remembered */
    for (uint32_t i = 0; i < 40; i++)
        memcpy(map(0x40000000 + i * 16 * PAGE, PAGE, RW), SECRET, 17);
}
VX_EXPORT void write_growing(void) { /* one place that grows in every direction, with holes in between */
    memcpy(map(0x40010000, PAGE, RW), SECRET, 17), memcpy(map(0x40012000, PAGE, RW), SECRET, 17);
    memcpy(map(0x4000f000, PAGE, RW), SECRET, 17), memcpy(map(0x40011000, PAGE, RW), SECRET, 17);
    unmap((void *)0x40010000, 2 * PAGE), memcpy(map(0x40010000, 4 * PAGE, RW), SECRET, 17);
    protect((void *)0x40012000, PAGE, READ);
}
VX_EXPORT void hide_data(void) { write_data(), protect(data, PAGE, NONE), protect(zeros + 3 * PAGE, PAGE, READ); }
VX_EXPORT void remove_prepared(void) { write_prepared(), unmap(prepared, 3 * PAGE); }
VX_EXPORT void replace_prepared(void) {
    write_prepared(), unmap(prepared, 8 * PAGE), memcpy(map((uint32_t)prepared, 8 * PAGE, RW) + PAGE, SECRET, 17);
}
VX_EXPORT void move_prepared(void) { write_prepared(), system_call(163, (uint32_t)prepared, 8 * PAGE, 32 * PAGE, 1); }
VX_EXPORT void empty_constants(void) { discard(constants, sizeof constants); }
VX_EXPORT void empty_prepared(void) { discard(prepared, 8 * PAGE), protect(prepared + 4 * PAGE, PAGE, READ); }
VX_EXPORT void empty_sealed(void) { discard(sealed, PAGE); }
VX_EXPORT void cut_stack(void) { unmap((void *)0xff7e0000, 16 * PAGE), protect((void *)0xff800000, PAGE, NONE); }
VX_EXPORT uint32_t code_of(uint32_t value) {
    char *code = map(0x50000000, PAGE, RWX);
    put_code(code, value);
    return run(code);
}
VX_EXPORT void make_code(void) { code_of(42); }
VX_EXPORT void change_code(void) { put_code(prepared + 6 * PAGE, 42), run(prepared + 6 * PAGE); }
VX_EXPORT uint32_t prepared_code(void) { return run(prepared + 6 * PAGE); }
VX_EXPORT void make_data_code(void) {
    put_code(data, 42), protect(data, PAGE, RWX);
    run(data);
}
VX_EXPORT void set_break(void) { system_call(45, system_call(45, 0, 0, 0, 0) + 40 * PAGE, 0, 0, 0); }
VX_EXPORT void nothing(void) {}
VX_EXPORT void end_badly(void) { write_data(), write_heap(), write_stack(), *(volatile int *)16 = 1; }

static uint32_t any(const char *at, uint32_t size) {
    uint32_t seen = 0;
    for (uint32_t i = 0; i < size; i++)
        seen |= (uint8_t)at[i];
    return seen;
}
/* Where tenants had pages: what comes there is empty. */
VX_EXPORT uint32_t found_in_new_pages(void) {
    uint32_t seen = any(map(0, 64 * PAGE, RW), 64 * PAGE), old = (uint32_t)system_call(45, 0, 0, 0, 0);
    seen |= any(map(0x3fff0000, 4 << 20, RW), 4 << 20);
    system_call(45, old + 40 * PAGE, 0, 0, 0);
    return seen | any((const char *)old, 40 * PAGE);
}

VX_EXPORT uint32_t peek(uint32_t at) { return *(volatile uint8_t *)at; }
VX_EXPORT void poke(uint32_t at) { *(volatile uint8_t *)at = 1; }
VX_EXPORT uint32_t next_mapping(void) { return (uint32_t)map(0, PAGE, RW); }
VX_EXPORT uint32_t the_break(void) { return (uint32_t)system_call(45, 0, 0, 0, 0); }
