/* Sums of squares of tensors, or of their differences from a copy. nissa/kernels/squares.py calls nissa_squares.

   Sums are float64 and are added per run, then over runs, so that they do not depend on the number of threads. */

#include <stdlib.h>

#include "parallel.h"
#include "tensors.h"

/* Use of the copies; the values are those of nissa.kernels.native. */
enum { IGNORE, WRITE, SUBTRACT };

typedef struct {
  const Tensor *tensors;
  const Run *runs;
  double *sums; /* of each run */
  int64_t use;
} Call;

#define DEFINE_BLOCK(REAL, TYPE)                                                                                           \
  INLINE double square_##TYPE(const char *data, const char *copy, int64_t dtype, int64_t size) {                           \
    REAL decoded[BLOCK], other[BLOCK];                                                                                     \
    const REAL *values = load_##TYPE(data, dtype, size, decoded);                                                          \
    double sum = 0;                                                                                                        \
    if (copy) {                                                                                                            \
      const REAL *before = load_##TYPE(copy, dtype, size, other);                                                          \
      for (int64_t i = 0; i < size; i++) sum += ((double)values[i] - before[i]) * ((double)values[i] - before[i]);         \
    } else {                                                                                                               \
      for (int64_t i = 0; i < size; i++) sum += (double)values[i] * values[i];                                             \
    }                                                                                                                      \
    return sum;                                                                                                            \
  }

DEFINE_BLOCK(float, single)
DEFINE_BLOCK(double, double)

INLINE double square(const char *data, const char *copy, int64_t dtype, int64_t size) {
  return dtype == FLOAT64 ? square_double(data, copy, dtype, size) : square_single(data, copy, dtype, size);
}

static double square_portable(const char *data, const char *copy, int64_t dtype, int64_t size) {
  return square(data, copy, dtype, size);
}

static double (*square_block)(const char *, const char *, int64_t, int64_t) = square_portable;

#ifdef AVX512
AVX2 static double square_avx2(const char *data, const char *copy, int64_t dtype, int64_t size) {
  return square(data, copy, dtype, size);
}

AVX512 static double square_avx512(const char *data, const char *copy, int64_t dtype, int64_t size) {
  return square(data, copy, dtype, size);
}

__attribute__((constructor)) static void choose(void) {
  if (has_avx512())
    square_block = square_avx512;
  else if (has_avx2())
    square_block = square_avx2;
}
#endif

static void execute(void *data, int64_t index, void *scratch) {
  (void)scratch;
  const Call *call = data;
  const Run run = call->runs[index];
  const Tensor *tensor = call->tensors + run.tensor;
  const int64_t bytes = item_size(tensor->dtype);
  for (int64_t first = run.first; first < run.first + run.size; first += BLOCK) {
    const int64_t left = run.first + run.size - first, size = left < BLOCK ? left : BLOCK;
    const char *block = tensor->data + first * bytes;
    char *copy = call->use == IGNORE ? 0 : (char *)tensor->target + first * bytes;
    if (call->use == WRITE) memcpy(copy, block, (size_t)(size * bytes));
    call->sums[index] += square_block(block, call->use == SUBTRACT ? copy : 0, tensor->dtype, size);
  }
}

/* Write the sum of squares of each tensor, on up to `threads` threads; return 0, or -1 if there is not enough memory. */
int nissa_squares(const Tensor *tensors, int64_t number, int64_t use, double *sums, int threads) {
  const int64_t runs = count_runs(tensors, number);
  double *of_runs = calloc((size_t)runs + 1, sizeof *of_runs + sizeof(Run));
  if (!of_runs) return -1;
  Run *list = (Run *)(of_runs + runs);
  list_runs(tensors, number, list);
  Call call = {tensors, list, of_runs, use};
  const int failed = execute_runs(execute, &call, runs, threads, 0);
  for (int64_t i = 0; i < number; i++) sums[i] = 0;
  for (int64_t run = 0; run < runs && !failed; run++) sums[list[run].tensor] += of_runs[run];
  free(of_runs);
  return failed;
}
