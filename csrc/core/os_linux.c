/* The only file that calls the operating system for memory, signals, threads' %gs and time. */
#include "os.h"
#include "limits.h"

#include <asm/prctl.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define GUARD_INSTALL 102 /* MADV_GUARD_INSTALL, which older headers lack */

static int protection(unsigned prot) {
    return (prot & 1 ? PROT_READ : 0) | (prot & 2 ? PROT_WRITE : 0);
}

static bool map_fixed(void *address, size_t size, int prot, int flags, int fd, uint64_t offset) {
    return mmap(address, size, prot, MAP_FIXED | flags, fd, (off_t)offset) == address;
}

/* Linux merges neighbouring anonymous mappings unless each was first touched on its own.  One touch
 * before anything is split off makes every later piece mergeable with every other. */
static bool touch_once(uint8_t *page) {
    if (mprotect(page, 4096, PROT_READ | PROT_WRITE) != 0)
        return false;
    *(volatile uint8_t *)page = 0;
    return mprotect(page, 4096, PROT_NONE) == 0 && os_discard(page, 4096);
}

static uint8_t *map_nothing(uintptr_t wish, size_t size) {
    void *raw = mmap((void *)wish, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return raw == MAP_FAILED ? NULL : raw;
}

static uint8_t *map_aligned(size_t size, size_t align, size_t lead) {
    uint8_t *raw = map_nothing(0, size + align);
    if (raw == NULL)
        return NULL;
    size_t head = (align - (((uintptr_t)raw + lead) & (align - 1))) & (align - 1);
    if (head != 0)
        munmap(raw, head);
    munmap(raw + head + size, align - head);
    return raw + head;
}

/* The kernel maps where it is asked to if nothing is there, and below the last large one nothing often is:
 * then nothing has to be cut off. */
static uint8_t *map_below_last(size_t size, size_t align, size_t lead) {
    static _Atomic uintptr_t last;
    uintptr_t before = atomic_load(&last), step = (size + align - 1) & ~(align - 1);
    uint8_t *found = before > step ? map_nothing(before - step, size) : NULL;
    if (found != NULL && (((uintptr_t)found + lead) & (align - 1)) != 0) {
        munmap(found, size);
        found = NULL;
    }
    if (found == NULL)
        found = map_aligned(size, align, lead);
    if (found != NULL)
        atomic_store(&last, (uintptr_t)found);
    return found;
}

void *os_reserve(size_t size, size_t align, size_t lead) {
    uint8_t *found = align > 4096 ? map_below_last(size, align, lead) : map_nothing(0, size);
    if (found == NULL || touch_once(found))
        return found;
    os_release(found, size);
    return NULL;
}

static void *mapped(void *memory) { return memory == MAP_FAILED ? NULL : memory; }

/* To cut a piece out of a merged mapping the kernel may need one more than the process may have.
 * Then the address space stays taken, which is better than the process ending. */
void os_release(void *address, size_t size) {
    if (munmap(address, size) == 0)
        return;
    VX_CHECK(errno == ENOMEM);
    (void)os_discard(address, size);
}

void *os_private(size_t size) {
    return mapped(mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
}

bool os_map(void *address, size_t size, unsigned prot) {
    return map_fixed(address, size, protection(prot), MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

bool os_map_file(void *address, size_t size, unsigned prot, int fd, uint64_t offset) {
    return map_fixed(address, size, protection(prot), MAP_PRIVATE | MAP_NORESERVE, fd, offset);
}

bool os_unmap(void *address, size_t size) {
    return map_fixed(address, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

void *os_shared(size_t size) {
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

/* mremap(2): an old size of 0 maps shared pages once more.  Refused half way it leaves a hole, which has to be
 * reserved again before anyone else maps something there.  Where the process has all mappings that it may have, both
 * are refused before anything is done: then there is no hole, or taking all rights away would fail. */
bool os_share(void *address, size_t size, void *shared) {
    if (mremap(shared, 0, size, MREMAP_MAYMOVE | MREMAP_FIXED, address) == address)
        return true;
    VX_CHECK(os_unmap(address, size) || os_protect(address, size, 0));
    return false;
}

void *os_share_file(int fd, uint64_t offset, size_t size) {
    return mapped(mmap(NULL, size, PROT_READ, MAP_SHARED | MAP_NORESERVE, fd, (off_t)offset));
}

void *os_share_again(void *memory, size_t size) {
    void *again = mapped(mremap(memory, 0, size, MREMAP_MAYMOVE));
    if (again == NULL || mprotect(again, size, PROT_READ) == 0)
        return again;
    os_release(again, size);
    return NULL;
}

bool os_share_copy(void *address, size_t size, const void *data) {
    if (!map_fixed(address, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0))
        return false;
    memcpy(address, data, size);
    return mprotect(address, size, PROT_READ) == 0;
}

/* The kernel copies: where we would get SIGSEGV or SIGBUS it stops. */
bool os_copy(void *to, const void *from, size_t size) {
    for (size_t at = 0; at < size;) {
        struct iovec target = {(char *)to + at, size - at};
        struct iovec source = {(char *)(uintptr_t)from + at, size - at};
        ssize_t done = process_vm_readv(getpid(), &target, 1, &source, 1, 0);
        if (done <= 0)
            return false;
        at += (size_t)done;
    }
    return true;
}

bool os_discard(void *address, size_t size) { return madvise(address, size, MADV_DONTNEED) == 0; }

bool os_protect(void *address, size_t size, unsigned prot) {
    return mprotect(address, size, protection(prot)) == 0;
}

/* proc_pid_pagemap(5): bits of an entry. */
#define PAGE_PRESENT ((uint64_t)1 << 63)
#define PAGE_SWAPPED ((uint64_t)1 << 62)
#define PAGE_OF_FILE ((uint64_t)1 << 61) /* or shared; a private copy of one is not */

static bool read_page_entries(int fd, const void *address, uint64_t *entries, size_t count) {
    off_t at = (off_t)((uintptr_t)address / 4096 * sizeof *entries);
    return pread(fd, entries, count * sizeof *entries, at) == (ssize_t)(count * sizeof *entries);
}

int os_open_pagemap(void) { return open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC); }

void os_find_changed(int pagemap, const void *address, size_t pages, uint8_t *changed) {
    uint64_t entries[256];
    memset(changed, 1, pages);
    for (size_t done = 0, count; pagemap >= 0 && done < pages; done += count) {
        count = pages - done < VX_COUNT(entries) ? pages - done : VX_COUNT(entries);
        if (!read_page_entries(pagemap, (const char *)address + done * 4096, entries, count))
            return;
        for (size_t i = 0; i < count; i++)
            changed[done + i] = entries[i] & (PAGE_PRESENT | PAGE_SWAPPED) && !(entries[i] & PAGE_OF_FILE);
    }
}

/* Does the kernel, and not only say so?  What is emulated may take any advice for good. */
static bool guards_hold(void) {
    uint8_t byte, *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED)
        return false;
    bool hold = os_copy(&byte, page, 1) && madvise(page, 4096, GUARD_INSTALL) == 0 && !os_copy(&byte, page, 1) &&
                errno == EFAULT;
    munmap(page, 4096);
    return hold;
}

static vx_once guards_once = VX_ONCE_INIT;
static bool has_guards;

static void ask_for_guards(void) { has_guards = guards_hold(); }

void os_guard_prepare(void) { vx_run_once(&guards_once, ask_for_guards); }

bool os_guard(void *address, size_t size) {
    os_guard_prepare();
    return (has_guards && madvise(address, size, GUARD_INSTALL) == 0) || mprotect(address, size, PROT_NONE) == 0;
}

int os_memory_file(const char *name, uint64_t size) {
    int fd = memfd_create(name, MFD_CLOEXEC);
    if (fd >= 0 && ftruncate(fd, (off_t)size) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

bool os_write_at(int fd, const void *data, size_t size, uint64_t offset) {
    const uint8_t *from = data;
    while (size != 0) {
        ssize_t done = pwrite(fd, from, size, (off_t)offset);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return false;
        from += done, offset += (uint64_t)done, size -= (size_t)done;
    }
    return true;
}

void os_close(int fd) { close(fd); }

bool os_map_twice(size_t size, void **run, void **edit) {
    int fd = os_memory_file("vxplug-code", size);
    if (fd < 0)
        return false;
    *run = mmap(NULL, size, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    *edit = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (*run != MAP_FAILED && *edit != MAP_FAILED)
        return true;
    if (*run != MAP_FAILED)
        munmap(*run, size);
    if (*edit != MAP_FAILED)
        munmap(*edit, size);
    return false;
}

/* HWCAP2_FSGSBASE: the kernel lets user code use rdgsbase and wrgsbase. */
#define HWCAP2_FSGSBASE_BIT 2
bool os_gs_instructions;

bool os_gs_init(void) {
    os_gs_instructions = getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE_BIT;
    uint64_t base;
    return os_gs_instructions || syscall(SYS_arch_prctl, ARCH_GET_GS, &base) == 0;
}

void os_ask_gs(uint64_t base) {
    if (os_gs_instructions)
        __asm__ volatile("wrgsbase %0" : : "r"(base) : "memory");
    else
        VX_CHECK(syscall(SYS_arch_prctl, ARCH_SET_GS, base) == 0);
}

bool os_random(void *data, size_t size) { return getrandom(data, size, 0) == (ssize_t)size; }

static uint64_t read_clock(clockid_t clock) {
    struct timespec now;
    if (clock_gettime(clock, &now) != 0)
        return 0;
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t os_now_ns(void) { return read_clock(CLOCK_MONOTONIC); }

/* The clock that pthread_getcpuclockid would give, by the kernel's encoding of it (linux/posix-timers.h:
 * the inverted thread id, CPUCLOCK_PERTHREAD_MASK, CPUCLOCK_SCHED). */
uint64_t os_thread_time_ns(int thread_id) { return read_clock((clockid_t)(~(unsigned)thread_id << 3 | 4 | 2)); }

void os_sleep_ns(uint64_t ns) {
    struct timespec span = {.tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u)};
    nanosleep(&span, NULL);
}

void os_wait(_Atomic uint32_t *word, uint32_t value) {
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

void os_wake(_Atomic uint32_t *word) {
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
}

int os_thread_id(void) { return (int)syscall(SYS_gettid); }

bool os_signal_thread(int thread_id, int signal) {
    return syscall(SYS_tgkill, getpid(), thread_id, signal) == 0;
}

bool os_sigaction(int signal, const struct sigaction *action, struct sigaction *old) {
    return sigaction(signal, action, old) == 0;
}

void *os_altstack_enter(bool *ok) {
    stack_t now;
    *ok = sigaltstack(NULL, &now) == 0;
    if (!*ok || (!(now.ss_flags & SS_DISABLE) && now.ss_size >= VX_ALTSTACK))
        return NULL;
    uint8_t *mapping = mmap(NULL, VX_ALTSTACK + 4096, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    *ok = mapping != MAP_FAILED;
    if (!*ok)
        return NULL;
    stack_t ours = {.ss_sp = mapping + 4096, .ss_size = VX_ALTSTACK};
    *ok = mprotect(mapping, 4096, PROT_NONE) == 0 && sigaltstack(&ours, NULL) == 0;
    return mapping;
}

void os_altstack_leave(void *mapping) {
    stack_t now, none = {.ss_flags = SS_DISABLE};
    if (mapping == NULL)
        return;
    if (sigaltstack(NULL, &now) == 0 && now.ss_sp == (uint8_t *)mapping + 4096)
        sigaltstack(&none, NULL);
    munmap(mapping, VX_ALTSTACK + 4096);
}
