/* rewrite_run PROGRAM: runs a static i386 program of our own making in a raw sandbox, its output to fd 1.
 * Exit status: the program's, or 100 and how it ended on stderr.  The file is trusted. */
#include "core/internal.h"

#include <elf.h>
#include <stdio.h>
#include <unistd.h>

static bool to_stdout(void *context, int fd, const void *data, size_t size) {
    (void)context, (void)fd;
    return write(1, data, size) == (ssize_t)size;
}

static uint8_t *read_file(const char *path) {
    FILE *file = fopen(path, "rb");
    uint8_t *bytes = calloc(1, 1 << 20);
    if (file == NULL || bytes == NULL || fread(bytes, 1, 1 << 20, file) == 0)
        exit(2);
    fclose(file);
    return bytes;
}

/* Whole pages, as the kernel maps them: what precedes a segment in its first page comes along. */
static size_t load(const uint8_t *file, vx_segment *segments) {
    Elf32_Ehdr header;
    size_t count = 0;
    memcpy(&header, file, sizeof header);
    for (unsigned i = 0; i < header.e_phnum; i++) {
        Elf32_Phdr p;
        memcpy(&p, file + header.e_phoff + i * sizeof p, sizeof p);
        uint32_t pad = p.p_vaddr % VX_PAGE_SIZE;
        if (p.p_type != PT_LOAD)
            continue;
        segments[count++] = (vx_segment){
            .vaddr = p.p_vaddr - pad, .memsz = p.p_memsz + pad, .filesz = p.p_filesz == 0 ? 0 : p.p_filesz + pad,
            .prot = (p.p_flags & PF_R ? VX_PROT_READ : 0) | (p.p_flags & PF_W ? VX_PROT_WRITE : 0) |
                    (p.p_flags & PF_X ? VX_PROT_EXEC : 0) | VX_PROT_WRITABLE_CODE,
            .data = file + p.p_offset - pad};
    }
    return count;
}

int main(int argc, char **argv) {
    vx_segment segments[VX_SEGMENTS_MAX];
    uint8_t *file = read_file(argc == 2 ? argv[1] : "");
    Elf32_Ehdr header;
    memcpy(&header, file, sizeof header);
    vx_image image = {.segments = segments, .count = load(file, segments), .entry = header.e_entry};
    vx_options options = {.memory = 64 << 20, .stack = 1 << 20, .raw = true, .timeout_ns = 20000000000u,
                          .hooks = {.output = to_stdout}};
    vx_plugin *plugin;
    vx_sandbox *box;
    vx_trap trap;
    vx_cpu cpu = {.registers = {.eip = header.e_entry}};
    cpu.registers.gpr[4] = VX_STACK_TOP - 256;
    memcpy(cpu.fx, "\x7f\x03", 2);
    memcpy(cpu.fx + 24, "\x80\x1f", 2);
    if (vx_plugin_create(&image, &plugin) != VX_OK || vx_sandbox_create(plugin, &options, &box, &trap) != VX_OK ||
        vx_run(box, &cpu, &trap) != VX_TRAP)
        return 2;
    if (trap.kind != VX_TRAP_EXIT)
        fprintf(stderr, "%s at %08x, address %08x\n", vx_trap_kind_name(trap.kind), trap.registers.eip, trap.address);
    vx_sandbox_free(box);
    vx_plugin_unref(plugin);
    free(file);
    return trap.kind == VX_TRAP_EXIT ? (int)trap.code : 100;
}
