/* Cryptographic hashes, from the portable C of the pycryptodome package, which declares them nowhere. */
#include <stdlib.h>
#include "bench.h"

typedef struct hash_state hash_state;
int MD5_digest(const hash_state *state, uint8_t digest[16]);
int SHA1_digest(const hash_state *state, uint8_t digest[20]);
int SHA256_digest(const hash_state *state, uint8_t *digest, size_t size);
int SHA512_digest(const hash_state *state, uint8_t *digest, size_t size);
int blake2s_digest(const hash_state *state, uint8_t digest[32]);
int blake2b_digest(const hash_state *state, uint8_t digest[64]);
int MD5_init(hash_state **state);
int SHA1_init(hash_state **state);
int SHA256_init(hash_state **state);
int SHA512_init(hash_state **state, size_t size);
int blake2s_init(hash_state **state, const uint8_t *key, size_t key_size, size_t size);
int blake2b_init(hash_state **state, const uint8_t *key, size_t key_size, size_t size);
int keccak_oneshot(const uint8_t *data, size_t len, uint8_t *digest, size_t size, size_t capacity, uint8_t rounds,
                   uint8_t padding);

/* NAME_update and NAME_destroy look alike; `init` and `digest` take what each needs besides. */
#define HASH(name, bits, init, digest) \
    int name##_update(hash_state *state, const uint8_t *data, size_t len); \
    int name##_destroy(hash_state *state); \
    static bytes run_##name(bytes input, uint32_t unused) { \
        unsigned char *out = bench_room(bits / 8); \
        hash_state *state; \
        (void)unused; \
        bench_check(!name##_init init && !name##_update(state, input.ptr, input.len) && !name##_digest digest && \
                    !name##_destroy(state), #name); \
        return (bytes){out, bits / 8}; \
    }
HASH(MD5, 128, (&state), (state, out))
HASH(SHA1, 160, (&state), (state, out))
HASH(SHA256, 256, (&state), (state, out, 32))
HASH(SHA512, 512, (&state, 64), (state, out, 64))
HASH(blake2s, 256, (&state, out, 0, 32), (state, out)) /* no key, but not a null pointer to it */
HASH(blake2b, 512, (&state, out, 0, 64), (state, out))

static bytes run_SHA3(bytes input, uint32_t unused) {
    unsigned char *out = bench_room(32);
    (void)unused;
    bench_check(!keccak_oneshot(input.ptr, input.len, out, 32, 64, 24, 6), "SHA3");
    return (bytes){out, 32};
}

#define ROW(name) {#name, NULL, run_##name, NULL}
const bench_task bench_tasks[] = {ROW(MD5),     ROW(SHA1),    ROW(SHA256), ROW(SHA512),
                                  ROW(blake2s), ROW(blake2b), ROW(SHA3),   {0}};
