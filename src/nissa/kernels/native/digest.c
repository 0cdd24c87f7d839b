/* Digests of the bits of tensors. nissa/kernels/digest.py calls nissa_digest; digest_reference.py states the formula.

   Sums are integers modulo 2^64, so that they depend neither on the order of additions nor on the number of threads. */

#include <stdlib.h>

#include "parallel.h"
#include "tensors.h"

enum { LANE = sizeof(uint64_t) };

typedef struct {
  const Tensor *tensors;
  const Run *runs;
  uint64_t *digests;
} Call;

/* Finalizer of SplitMix64, Stafford's variant 13: a bijection, so that lanes that differ at one place have different values. */
INLINE uint64_t mix(uint64_t lane, uint64_t place) {
  uint64_t mixed = lane + (place + 1) * 0x9E3779B97F4A7C15u;
  mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9u;
  mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EBu;
  return mixed ^ (mixed >> 31);
}

INLINE uint64_t add_lanes(const char *data, int64_t first, int64_t lanes) {
  uint64_t sum = 0;
  for (int64_t i = 0; i < lanes; i++) {
    uint64_t lane; /* a tensor need not begin at a multiple of eight bytes */
    memcpy(&lane, data + i * LANE, LANE);
    sum += mix(lane, (uint64_t)(first + i));
  }
  return sum;
}

static uint64_t lanes_portable(const char *data, int64_t first, int64_t lanes) { return add_lanes(data, first, lanes); }

static uint64_t (*sum_lanes)(const char *, int64_t, int64_t) = lanes_portable;

#ifdef AVX512
AVX2 static uint64_t lanes_avx2(const char *data, int64_t first, int64_t lanes) { return add_lanes(data, first, lanes); }

AVX512 static uint64_t lanes_avx512(const char *data, int64_t first, int64_t lanes) { return add_lanes(data, first, lanes); }

__attribute__((constructor)) static void choose(void) {
  if (has_avx512())
    sum_lanes = lanes_avx512;
  else if (has_avx2())
    sum_lanes = lanes_avx2;
}
#endif

static void execute(void *data, int64_t index, void *scratch) {
  (void)scratch;
  const Call *call = data;
  const Run run = call->runs[index];
  const Tensor *tensor = call->tensors + run.tensor;
  const int64_t start = run.first * item_size(tensor->dtype), bytes = run.size * item_size(tensor->dtype);
  const int64_t lanes = bytes / LANE, rest = bytes % LANE; /* runs begin at multiples of a lane; only the last has a rest */
  uint64_t sum = sum_lanes(tensor->data + start, start / LANE, lanes);
  if (rest) {
    uint64_t lane = 0;
    memcpy(&lane, tensor->data + start + lanes * LANE, (size_t)rest);
    sum += mix(lane, (uint64_t)(start / LANE + lanes));
  }
  __atomic_fetch_add(call->digests + run.tensor, sum, __ATOMIC_RELAXED);
}

/* Write the digest of each tensor, on up to `threads` threads; return 0, or -1 if there is not enough memory. */
int nissa_digest(const Tensor *tensors, int64_t number, uint64_t *digests, int threads) {
  const int64_t runs = count_runs(tensors, number);
  Run *list = calloc((size_t)runs + 1, sizeof *list);
  if (!list) return -1;
  list_runs(tensors, number, list);
  for (int64_t i = 0; i < number; i++) digests[i] = mix((uint64_t)(tensors[i].size * item_size(tensors[i].dtype)), ~(uint64_t)0);
  Call call = {tensors, list, digests};
  const int failed = execute_runs(execute, &call, runs, threads, 0);
  free(list);
  return failed;
}
