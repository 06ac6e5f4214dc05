/* Parses forms.def.  The notation is described there. */
#include "forms.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "layout.h"

struct row {
    const char *name, *encoding, *operands, *flags, *kills;
    enum hook hook;
    unsigned attributes;
};

static const struct row rows[] = {
#define ROW(name, encoding, operands, flags, kills, hook, attributes) \
    { name, encoding, operands, flags, kills, HOOK_##hook, attributes },
#include "forms.def"
#undef ROW
};

enum { ROWS = sizeof rows / sizeof *rows };

struct vector_row {
    const char *name;
    struct vector vector;
    uint8_t opcode, digit_or_none, reg, mem, immediate;
    uint16_t size;
    uint8_t aligned;
    const char *flags;
    enum hook hook;
};

/* vector_forms.def is what vectors.py wrote for this build. */
static const struct vector_row vector_rows[] = {
#define VECTOR_ROW(name, kind, map, opcode, pp, w, l, digit, reg, mem, immediate, size, element, aligned, flags, hook, \
                   attributes) \
    { name, { kind, map, pp, w, l, element, attributes }, opcode, (uint8_t)(digit), reg, mem, immediate, size, \
      aligned, flags, HOOK_##hook },
#include "vector_forms.def"
#undef VECTOR_ROW
};

enum { VECTOR_ROWS = sizeof vector_rows / sizeof *vector_rows };

static void bad_row(const struct row *row, const char *word) {
    fprintf(stderr, "forms.def: %s \"%s\": cannot read \"%s\"\n", row->name, row->encoding, word);
    exit(2);
}

static uint32_t flag_bit(char letter) {
    static const char letters[] = "cpazsod";
    static const uint32_t bits[] = { EFLAGS_CF, EFLAGS_PF, EFLAGS_AF, EFLAGS_ZF,
                                     EFLAGS_SF, EFLAGS_OF, EFLAGS_DF };
    const char *at = strchr(letters, letter);
    return at && letter ? bits[at - letters] : 0;
}

static void parse_flags(const struct row *row, struct form *form) {
    uint32_t *sets[] = { &form->reads, &form->writes, &form->undefined };
    int set = 0;
    for (const char *c = row->flags; *c; c++) {
        if (*c == '/' && set < 2)
            set++;
        else if (flag_bit(*c))
            *sets[set] |= flag_bit(*c);
        else
            bad_row(row, row->flags);
    }
}

static void parse_kills(const struct row *row, struct form *form) {
    static const char names[] = "acdbsBSD";  /* eax ecx edx ebx esp ebp esi edi */
    for (const char *c = row->kills; *c; c++) {
        const char *at = strchr(names, *c);
        if (!at)
            bad_row(row, row->kills);
        form->kills |= (uint8_t)(1u << (at - names));
    }
}

static bool is_hex_byte(const char *word) {
    return strlen(word) == 2 && strspn(word, "0123456789abcdef") == 2;
}

static void parse_byte(struct form *form, uint8_t byte) {
    bool prefix = byte == 0x66 || byte == 0xf2 || byte == 0xf3;
    if (prefix && !form->opcode_size)
        form->mandatory = byte;
    else
        form->opcode[form->opcode_size++] = byte;
}

static void parse_modrm(struct form *form, char digit) {
    form->modrm = true;
    form->digit_fixed = digit != 'r';
    form->digit = form->digit_fixed ? (uint8_t)(digit - '0') : 0;
}

static void parse_encoding_word(const struct row *row, struct form *form, const char *word) {
    if (is_hex_byte(word))
        parse_byte(form, (uint8_t)strtoul(word, NULL, 16));
    else if (word[0] == '/' && (word[1] == 'r' || (word[1] >= '0' && word[1] <= '7')) && !word[2])
        parse_modrm(form, word[1]);
    else if (!strcmp(word, "v"))
        form->sized = true;
    else if (!strcmp(word, "+r"))
        form->plus_register = true;
    else if (!strcmp(word, "+cc"))
        form->plus_condition = true;
    else if (!strcmp(word, "+i"))
        form->plus_stack = true;
    else if (word[0] == 'i' && strchr("bwdzm", word[1]) && !word[2])
        form->immediate = word[1], form->immediates++;
    else
        bad_row(row, word);
}

static void parse_operand_size(const struct row *row, struct operand *operand, const char *text) {
    char *end;
    operand->sized = *text == 'v';
    operand->size = operand->sized ? 4 : (uint16_t)strtoul(text, &end, 10);
    if (operand->sized)
        end = (char *)text + 1;
    operand->aligned = *end == 'a';
    if (!operand->size || (*end && *end != 'a'))
        bad_row(row, text);
}

/* E M R: r/m general; Q N: r/m MMX; W U: r/m XMM; G P V: reg field; letters as in Intel's maps. */
static void parse_operand(const struct row *row, struct form *form, const char *word, bool first) {
    static const char kinds[] = "EMRQNWUGPV";
    static const enum bank banks[] = { BANK_GPR, BANK_GPR, BANK_GPR, BANK_MMX, BANK_MMX,
                                       BANK_XMM, BANK_XMM, BANK_GPR, BANK_MMX, BANK_XMM };
    const char *at = strchr(kinds, word[0]);
    if (!at)
        bad_row(row, word);
    bool in_reg_field = at - kinds >= 7;
    struct operand *operand = in_reg_field ? &form->reg : &form->rm;
    parse_operand_size(row, operand, word + 1);
    operand->bank = banks[at - kinds];
    operand->reg = in_reg_field || !strchr("M", word[0]);
    operand->mem = !in_reg_field && strchr("EMQW", word[0]);
    form->destination_rm |= first && !in_reg_field;
}

static void each_word(const struct row *row, struct form *form, const char *text, bool operands) {
    char copy[64], *state = NULL;
    bool first = true;
    if (strlen(text) >= sizeof copy)
        bad_row(row, text);
    strcpy(copy, text);
    for (char *word = strtok_r(copy, " ", &state); word; word = strtok_r(NULL, " ", &state)) {
        if (operands)
            parse_operand(row, form, word, first);
        else
            parse_encoding_word(row, form, word);
        first = false;
    }
}

static void parse_row(const struct row *row, struct form *form) {
    form->name = row->name;
    form->hook = row->hook;
    form->attributes = row->attributes;
    each_word(row, form, row->encoding, false);
    each_word(row, form, row->operands, true);
    parse_flags(row, form);
    parse_kills(row, form);
}

static void take_vector_row(const struct vector_row *row, struct form *form) {
    const struct row named = { .name = row->name, .flags = row->flags };
    form->name = row->name;
    form->vector = row->vector;
    form->opcode[0] = row->opcode;
    form->opcode_size = 1;
    form->modrm = row->reg || row->mem;
    form->digit_fixed = row->digit_or_none < 8;
    form->digit = row->digit_or_none & 7;
    form->immediate = row->immediate ? 'b' : 0;
    form->rm = (struct operand){ .reg = row->reg, .mem = row->mem, .size = row->size, .aligned = row->aligned };
    form->hook = row->hook;
    parse_flags(&named, form);
}

const struct form *forms(size_t *count) {
    static struct form table[ROWS + VECTOR_ROWS];
    if (!table[0].name) {
        for (size_t i = 0; i < ROWS; i++)
            parse_row(&rows[i], &table[i]);
        for (size_t i = 0; i < VECTOR_ROWS; i++)
            take_vector_row(&vector_rows[i], &table[ROWS + i]);
    }
    *count = ROWS + VECTOR_ROWS;
    return table;
}

size_t vector_forms(void) { return VECTOR_ROWS; }
