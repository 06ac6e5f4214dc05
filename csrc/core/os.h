/* Everything the core asks of the operating system.  os_linux.c is the only file that calls it.
 *
 * What holds for all: addresses and sizes are multiples of the page size; functions that return
 * bool return false when the kernel refused, and have then changed nothing the caller can see. */
#ifndef VX_OS_H
#define VX_OS_H

#include "base.h"

#include <signal.h>

/* Reserves address space without access; `lead` bytes after its start it is aligned.  `align` is a power of
 * two.  NULL on failure. */
void *os_reserve(size_t size, size_t align, size_t lead);
void os_release(void *address, size_t size);
/* Private zero pages anywhere; NULL on failure. */
void *os_private(size_t size);
/* Private zero pages / pages of a file at a fixed place inside a reservation. */
bool os_map(void *address, size_t size, unsigned prot);
bool os_map_file(void *address, size_t size, unsigned prot, int fd, uint64_t offset);
/* Back to reserved, as one mapping: the pages are gone. */
bool os_unmap(void *address, size_t size);
/* Pages that several mappings can have; NULL on failure.  os_release gives one mapping back. */
void *os_shared(size_t size);
/* A further mapping of them, with the rights of `shared`, at a fixed place inside a reservation. */
bool os_share(void *address, size_t size, void *shared);
/* Pages of a file, or of shared memory that is mapped at `memory`, mapped to be read; NULL and errno. */
void *os_share_file(int fd, uint64_t offset, size_t size);
void *os_share_again(void *memory, size_t size);
/* Other shared pages there, with a copy of `data`, to be read. */
bool os_share_copy(void *address, size_t size, const void *data);
/* memcpy that fails, with errno, where an access would be a fault. */
bool os_copy(void *to, const void *from, size_t size);
bool os_protect(void *address, size_t size, unsigned prot);
/* Takes all access to pages that may be read and written, for good: until what is mapped there goes.  The kernel
 * needs no mapping for that where it has guard regions (Linux 6.13). */
bool os_guard(void *address, size_t size);
void os_guard_prepare(void); /* asks the kernel whether it has them, which the first guard does otherwise */
/* The bytes are gone: zero again, or the file's. */
bool os_discard(void *address, size_t size);
/* What the kernel tells of this process's pages; closed by os_close.  -1 where it does not tell. */
int os_open_pagemap(void);
/* A byte for each page of private mappings: 0 if it is still as it was mapped, the file's or never touched.  Where the
 * kernel does not tell, 1. */
void os_find_changed(int pagemap, const void *address, size_t pages, uint8_t *changed);

/* Anonymous memory file; -1 on failure. */
int os_memory_file(const char *name, uint64_t size);
bool os_write_at(int fd, const void *data, size_t size, uint64_t offset);
void os_close(int fd);
/* One memory file mapped twice: *run executable, *edit writable.  The file is gone after. */
bool os_map_twice(size_t size, void **run, void **edit);

/* %gs base of the calling thread. */
bool os_gs_init(void); /* false: neither instruction nor system call works here */
extern bool os_gs_instructions;
void os_ask_gs(uint64_t base);
/* Reading first costs less than writing, and trusts nobody's memory of the last write. */
static inline void os_set_gs(uint64_t base) {
    uint64_t now = 0;
    if (VX_LIKELY(os_gs_instructions))
        __asm__ volatile("rdgsbase %0" : "=r"(now));
    if (VX_UNLIKELY(now != base))
        os_ask_gs(base);
}

bool os_random(void *data, size_t size);
uint64_t os_now_ns(void); /* monotonic */
void os_sleep_ns(uint64_t ns);
/* Sleeps until *word changes from `value` or os_wake(word). */
void os_wait(_Atomic uint32_t *word, uint32_t value);
void os_wake(_Atomic uint32_t *word);
int os_thread_id(void);
/* Processor time that a thread of this process has used; 0: there is no such thread. */
uint64_t os_thread_time_ns(int thread_id);
bool os_signal_thread(int thread_id, int signal);
/* Sends `signal` to this process's thread as a fatal default would be: for chained defaults. */
bool os_sigaction(int signal, const struct sigaction *action, struct sigaction *old);
/* Gives the calling thread an alternate signal stack of VX_ALTSTACK bytes unless it has one at
 * least as large.  Returns the mapping to release at thread exit, or NULL; *ok tells success. */
void *os_altstack_enter(bool *ok);
void os_altstack_leave(void *mapping);

#endif
