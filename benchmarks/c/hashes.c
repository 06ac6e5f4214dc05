/* Cryptographic hashes, from the portable C of the pycryptodome package. */
#include <stdlib.h>
#include "bench.h"

typedef struct hash_state hash_state;
int SHA256_init(hash_state **state);
int SHA256_update(hash_state *state, const uint8_t *data, size_t len);
int SHA256_digest(const hash_state *state, uint8_t *digest, size_t size);
int SHA256_destroy(hash_state *state);
int SHA512_init(hash_state **state, size_t size);
int SHA512_update(hash_state *state, const uint8_t *data, size_t len);
int SHA512_digest(const hash_state *state, uint8_t *digest, size_t size);
int SHA512_destroy(hash_state *state);
int blake2b_init(hash_state **state, const uint8_t *key, size_t key_size, size_t size);
int blake2b_update(hash_state *state, const uint8_t *data, size_t len);
int blake2b_digest(const hash_state *state, uint8_t digest[64]);
int blake2b_destroy(hash_state *state);

static bytes sha256(bytes input, uint32_t unused) {
    unsigned char *out = bench_room(64);
    hash_state *state;
    (void)unused;
    bench_check(!SHA256_init(&state) && !SHA256_update(state, input.ptr, input.len) && !SHA256_digest(state, out, 32) &&
                !SHA256_destroy(state), "sha256");
    return (bytes){out, 32};
}

static bytes sha512(bytes input, uint32_t unused) {
    unsigned char *out = bench_room(64);
    hash_state *state;
    (void)unused;
    bench_check(!SHA512_init(&state, 64) && !SHA512_update(state, input.ptr, input.len) && !SHA512_digest(state, out, 64) &&
                !SHA512_destroy(state), "sha512");
    return (bytes){out, 64};
}

static bytes blake2b(bytes input, uint32_t unused) {
    unsigned char *out = bench_room(64);
    hash_state *state;
    (void)unused;
    bench_check(!blake2b_init(&state, input.ptr, 0, 64) && !blake2b_update(state, input.ptr, input.len) &&
                !blake2b_digest(state, out) && !blake2b_destroy(state), "blake2b");
    return (bytes){out, 64};
}

const bench_task bench_tasks[] = {{"sha256", NULL, sha256, NULL}, {"sha512", NULL, sha512, NULL}, {"blake2b", NULL, blake2b, NULL}, {0}};
