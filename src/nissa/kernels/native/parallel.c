#include "parallel.h"

#include <stdlib.h>
#include <string.h>

/* OpenMP runtime that torch has loaded: those of GNU, LLVM and Intel export this function. It is null where none is loaded. */
extern void GOMP_parallel(void (*)(void *), void *, unsigned, unsigned) __attribute__((weak));

enum {
  RUN_BYTES = 1 << 21, /* about a quarter of a millisecond, which is much longer than waking a thread */
  STACK_BYTES = 1 << 16,
};

typedef struct {
  Execute *execute;
  void *call;
  int64_t runs, scratch;
  int64_t next, done; /* threads take the next run by an atomic addition: they have neither the GIL nor a lock of Python */
} Work;

static int64_t run_length(const Tensor *tensor) { return RUN_BYTES / item_size(tensor->dtype); }

int64_t count_runs(const Tensor *tensors, int64_t number) {
  int64_t runs = 0;
  for (int64_t i = 0; i < number; i++) {
    const int64_t length = run_length(tensors + i);
    runs += (tensors[i].size + length - 1) / length;
  }
  return runs;
}

void list_runs(const Tensor *tensors, int64_t number, Run *runs) {
  for (int64_t i = 0; i < number; i++) {
    const int64_t length = run_length(tensors + i);
    for (int64_t first = 0; first < tensors[i].size; first += length) {
      const int64_t left = tensors[i].size - first;
      *runs++ = (Run){i, first, left < length ? left : length};
    }
  }
}

static void take_runs(void *data) {
  Work *work = data;
  char on_stack[STACK_BYTES] __attribute__((aligned(64)));
  char *scratch = on_stack;
  if (work->scratch > STACK_BYTES) {
    scratch = calloc(1, (size_t)work->scratch);
    if (!scratch) return; /* the runs that this thread does not take are taken by others, or missing at the end */
  } else {
    memset(on_stack, 0, (size_t)work->scratch);
  }
  int64_t run;
  while ((run = __atomic_fetch_add(&work->next, 1, __ATOMIC_RELAXED)) < work->runs) {
    work->execute(work->call, run, scratch);
    __atomic_fetch_add(&work->done, 1, __ATOMIC_RELEASE);
  }
  if (scratch != on_stack) free(scratch);
}

int execute_runs(Execute *execute, void *call, int64_t runs, int threads, int64_t scratch) {
  Work work = {execute, call, runs, scratch, 0, 0};
  if (threads > 1 && GOMP_parallel) {
    GOMP_parallel(take_runs, &work, (unsigned)threads, 0);
  } else {
    take_runs(&work);
  }
  return __atomic_load_n(&work.done, __ATOMIC_ACQUIRE) == runs ? 0 : -1;
}
