/* Division of tensors into runs, and their execution on torch's OpenMP threads. */
#ifndef NISSA_PARALLEL_H
#define NISSA_PARALLEL_H

#include <stdint.h>

#include "tensors.h"

/* Part of a tensor that one thread processes at a time. */
typedef struct {
  int64_t tensor, first, size;
} Run;

/* Number of runs of all tensors. Runs depend on sizes alone, so that sums are added in the same order every time. */
int64_t count_runs(const Tensor *tensors, int64_t number);

/* Fill the list of runs. */
void list_runs(const Tensor *tensors, int64_t number, Run *runs);

/* Call `execute(call, run, scratch)` for each run, on up to `threads` threads. `scratch` bytes, all zero at first, belong to
   the thread. Return 0, or -1 if there is not enough memory. */
typedef void Execute(void *call, int64_t run, void *scratch);
int execute_runs(Execute *execute, void *call, int64_t runs, int threads, int64_t scratch);

#endif
