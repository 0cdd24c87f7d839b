/* Statistics of the elements of tensors: counts, sums, extremes and the buckets of an exponential histogram.

   The specification is nissa/kernels/reference.py; nissa/kernels/cpu.py calls nissa_statistics. Sums are float64 and are
   added per block, then over the blocks of a run, then over runs, so that they do not depend on the number of threads. */

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "parallel.h"
#include "tensors.h"

#ifdef AVX512
#include <immintrin.h>
#endif

enum {
  LINE = 64, /* bytes of a cache line */
  TOGETHER = 16, /* indexes that are added at once; their number is a multiple of it */
};

/* Columns of a packed row, as in nissa.kernels.moments. */
enum {
  COUNT,
  NONFINITE,
  ZEROS,
  VANISHING,
  EXPLODING,
  UNDERFLOW,
  OVERFLOW,
  TOTAL,
  ABS_TOTAL,
  SUM_OF_SQUARES,
  MINIMUM,
  MAXIMUM,
  ABS_MAX,
};

/* Tables of a layout and of thresholds for one type. Buckets are counted at an index: `1 << scale` of them for each
   exponent. `indexes` is their number, a multiple of 16, or 0 if buckets are not counted. */
typedef struct {
  int64_t below, above; /* bits of the largest magnitude that vanishes (-1: none), and of the largest that does not explode */
  int64_t scale, cell_bits, indexes, edge_count;
  const void *octave;             /* entry of each cell of an octave */
  const int32_t *column_of_index; /* column of the row */
  const void *edges;              /* bits of all bucket boundaries */
  const int32_t *column_of_slot;  /* column of the number of edges below a magnitude */
} Tables;

typedef struct {
  double total, abs_total, squares, minimum, maximum;
  int64_t finite, zeros, vanishing, exploding;
  int64_t smallest; /* bits of the smallest magnitude above zero */
} Found;

/* Row of a result; `shared` if several threads may add to it at the same time. */
typedef struct {
  int64_t *columns;
  int shared;
} Row;

typedef struct {
  const Tensor *tensors;
  const Tables *doubles, *singles;
  const Run *runs;
  Found *found;
  int64_t *rows, width;
  int shared;
} Call;

#define NO_MAGNITUDE INT64_MAX

static const Found NOTHING = {0, 0, 0, INFINITY, -INFINITY, 0, 0, 0, 0, NO_MAGNITUDE};

INLINE void add_block(Found *found, Found block) {
  found->total += block.total;
  found->abs_total += block.abs_total;
  found->squares += block.squares;
  found->minimum = block.minimum < found->minimum ? block.minimum : found->minimum;
  found->maximum = block.maximum > found->maximum ? block.maximum : found->maximum;
  found->finite += block.finite;
  found->zeros += block.zeros;
  found->vanishing += block.vanishing;
  found->exploding += block.exploding;
  found->smallest = block.smallest < found->smallest ? block.smallest : found->smallest;
}

/* Add to a column of a row. Sums of integers do not depend on the order in which threads add to the same row. */
INLINE void add_to(Row row, int32_t column, int64_t number) {
  if (row.shared)
    __atomic_fetch_add(row.columns + column, number, __ATOMIC_RELAXED);
  else
    row.columns[column] += number;
}

/* Add the histograms of a run, which are zero beyond a first and a last index, to its row, and reset them. */
INLINE void fold(const Tables *tables, int number, uint32_t *histograms, Row row, int64_t first, int64_t last) {
  const int64_t length = tables->indexes;
  for (int64_t start = first / TOGETHER * TOGETHER; start <= last; start += TOGETHER) {
    uint32_t sums[TOGETHER] = {0};
    for (int i = 0; i < number; i++) {
      for (int j = 0; j < TOGETHER; j++) sums[j] += histograms[i * length + start + j];
      memset(histograms + i * length + start, 0, TOGETHER * sizeof *histograms);
    }
    for (int j = 0; j < TOGETHER; j++)
      if (sums[j]) add_to(row, tables->column_of_index[start + j], sums[j]);
  }
}

#define NAME(x) x##_single
#define REAL float
#define BITS int32_t
#define UNSIGNED uint32_t
#define INDEX uint16_t
#define FRACTION 23
#define TOP 31
#include "elements.h"

/* From this number of half-precision elements on, it is faster to count how often each of the 65,536 values occurs. */
enum { MANY = 1 << 16, HALVES = 1 << 16, TALLIES = 2 };

INLINE int tallied(int64_t dtype, int64_t size, const Tables *tables) {
  return tables->indexes && size >= MANY && item_size(dtype) == 2;
}

/* Add the values of a tally to the statistics and to the histogram. */
static void weigh(int64_t dtype, const Tables *tables, Found *found, uint32_t *histogram, uint32_t (*tallies)[HALVES]) {
  for (int64_t half = 0; half < HALVES; half++) {
    const int64_t number = (int64_t)tallies[0][half] + tallies[1][half];
    if (!number) continue;
    const uint16_t bits = (uint16_t)half;
    float decoded;
    const double value = *load_single((const char *)&bits, dtype, 1, &decoded);
    const int32_t magnitude = bits_single((float)value) & 0x7fffffff;
    if (magnitude >= 0x7f800000) continue;
    add_block(found, (Found){number * value, number * fabs(value), number * (value * value), value, value, number,
                             magnitude ? 0 : number, magnitude <= tables->below ? number : 0,
                             magnitude > tables->above ? number : 0, magnitude ? magnitude : NO_MAGNITUDE});
    histogram[index_single(magnitude, tables)] += (uint32_t)number;
  }
  memset(tallies, 0, TALLIES * sizeof *tallies);
}

/* Add a long run of half precision. */
static void tally(const char *data, int64_t dtype, int64_t size, const Tables *tables, Found *found, uint32_t *histograms,
                  Row row) {
  const uint16_t *halves = (const uint16_t *)data;
  uint32_t(*tallies)[HALVES] = (void *)((char *)histograms + scratch_single(tables));
  int64_t i = 0;
  for (; i + 4 <= size; i += 4) {
    uint64_t loaded; /* one load for four */
    memcpy(&loaded, halves + i, sizeof loaded);
    for (int j = 0; j < 4; j++) tallies[j % TALLIES][(uint16_t)(loaded >> (16 * j))]++;
  }
  for (; i < size; i++) tallies[0][halves[i]]++;
  weigh(dtype, tables, found, histograms, tallies);
  finish_single(data, dtype, size, tables, found, histograms, row);
}

#undef NAME
#undef REAL
#undef BITS
#undef UNSIGNED
#undef INDEX
#undef FRACTION
#undef TOP

#define NAME(x) x##_double
#define REAL double
#define BITS int64_t
#define UNSIGNED uint64_t
#define INDEX uint32_t
#define FRACTION 52
#define TOP 63
#include "elements.h"

#ifdef AVX512
enum { LANES = 16, OCTAVE_CELLS = 32 };

/* float32 in one loop: two registers hold the entries of an octave, so that no index needs a load. */
AVX512 static int process_single_in_registers(const char *data, int64_t dtype, int64_t size, const Tables *tables,
                                              Found *found, uint16_t *indexes) {
  if (tables->cell_bits != 5 && tables->indexes) return process_avx512_single(data, dtype, size, tables, found, indexes);
  float decoded[BLOCK];
  const float *values = load_single(data, dtype, size, decoded);
  const int32_t *octave = tables->octave;
  const int counts = tables->indexes != 0;
  const __m512i entries = counts ? _mm512_loadu_si512(octave) : _mm512_setzero_si512();
  const __m512i others = counts ? _mm512_loadu_si512(octave + LANES) : _mm512_setzero_si512();
  const __m512i below = _mm512_set1_epi32((int32_t)tables->below), above = _mm512_set1_epi32((int32_t)tables->above);
  const __m512i mask = _mm512_set1_epi32(0x7fffffff);
  const __m128i shift = _mm_cvtsi64_si128(23 - tables->scale), cell = _mm_cvtsi64_si128(23 - 5);
  __m512d total[2], abs_total[2], squares[2];
  for (int i = 0; i < 2; i++) total[i] = abs_total[i] = squares[i] = _mm512_setzero_pd();
  __m512 least = _mm512_set1_ps(INFINITY), most = _mm512_set1_ps(-INFINITY);
  __m512i smallest = _mm512_set1_epi32(-1);
  int64_t zeros = 0, vanishing = 0, exploding = 0;
  for (int64_t i = 0; i < size; i += LANES) {
    const __mmask16 here = size - i >= LANES ? 0xffff : (__mmask16)((1u << (size - i)) - 1);
    const __m512 value = _mm512_maskz_loadu_ps(here, values + i);
    const __m512i magnitude = _mm512_and_si512(_mm512_castps_si512(value), mask);
    const __mmask16 not_zero = _mm512_test_epi32_mask(magnitude, magnitude); /* elements that are not here are zero */
    smallest = _mm512_mask_min_epu32(smallest, not_zero, smallest, magnitude);
    zeros += __builtin_popcount(here) - __builtin_popcount(not_zero);
    vanishing += __builtin_popcount(_mm512_mask_cmple_epi32_mask(here, magnitude, below));
    exploding += __builtin_popcount(_mm512_mask_cmpgt_epi32_mask(here, magnitude, above));
    least = _mm512_mask_min_ps(least, here, least, value);
    most = _mm512_mask_max_ps(most, here, most, value);
    const __m512d wide[2] = {_mm512_cvtps_pd(_mm512_castps512_ps256(value)),
                             _mm512_cvtps_pd(_mm512_extractf32x8_ps(value, 1))};
    for (int j = 0; j < 2; j++) {
      total[j] = _mm512_add_pd(total[j], wide[j]);
      abs_total[j] = _mm512_add_pd(abs_total[j], _mm512_abs_pd(wide[j]));
      squares[j] = _mm512_fmadd_pd(wide[j], wide[j], squares[j]);
    }
    if (counts) {
      const __m512i entry = _mm512_permutex2var_epi32(entries, _mm512_srl_epi32(magnitude, cell), others);
      const __m512i index = _mm512_srl_epi32(_mm512_add_epi32(magnitude, entry), shift);
      _mm512_mask_cvtepi32_storeu_epi16(indexes + i, here, index);
    }
  }
  const double all = _mm512_reduce_add_pd(_mm512_add_pd(abs_total[0], abs_total[1]));
  if (!(all < INFINITY)) return 1; /* the magnitudes of finite float32 cannot add up to infinity in float64 */
  add_block(found, (Found){_mm512_reduce_add_pd(_mm512_add_pd(total[0], total[1])), all,
                           _mm512_reduce_add_pd(_mm512_add_pd(squares[0], squares[1])), _mm512_reduce_min_ps(least),
                           _mm512_reduce_max_ps(most), size, zeros, vanishing, exploding,
                           zeros == size ? NO_MAGNITUDE : (int64_t)_mm512_reduce_min_epu32(smallest)});
  return 0;
}
#endif

__attribute__((constructor)) static void choose(void) {
#ifdef AVX512
  __builtin_cpu_init();
  if (has_avx512()) {
    block_single = process_single_in_registers;
    block_double = process_avx512_double;
  } else if (has_avx2()) {
    block_single = process_avx2_single;
    block_double = process_avx2_double;
  }
#endif
}

static void scan_run(const Call *call, Run run, Found *found, void *scratch) {
  const Tensor *tensor = call->tensors + run.tensor;
  const char *data = tensor->data + run.first * item_size(tensor->dtype);
  const Row row = {call->rows + tensor->target * call->width, call->shared};
  *found = NOTHING;
  if (tensor->dtype == FLOAT64)
    scan_double(data, tensor->dtype, run.size, call->doubles, found, scratch, row);
  else if (tallied(tensor->dtype, run.size, call->singles))
    tally(data, tensor->dtype, run.size, call->singles, found, scratch, row);
  else
    scan_single(data, tensor->dtype, run.size, call->singles, found, scratch, row);
}

static void execute(void *data, int64_t run, void *scratch) {
  const Call *call = data;
  scan_run(call, call->runs[run], call->found + run, scratch);
}

static double read_double(const int64_t *column) {
  double value;
  memcpy(&value, column, sizeof value);
  return value;
}

static void write_double(int64_t *column, double value) { memcpy(column, &value, sizeof value); }

static void add_run(int64_t *row, const Found *found, int64_t size) {
  row[COUNT] += size;
  row[NONFINITE] += size - found->finite;
  row[ZEROS] += found->zeros;
  row[VANISHING] += found->vanishing;
  row[EXPLODING] += found->exploding;
  write_double(row + TOTAL, read_double(row + TOTAL) + found->total);
  write_double(row + ABS_TOTAL, read_double(row + ABS_TOTAL) + found->abs_total);
  write_double(row + SUM_OF_SQUARES, read_double(row + SUM_OF_SQUARES) + found->squares);
  write_double(row + MINIMUM, fmin(read_double(row + MINIMUM), found->minimum));
  write_double(row + MAXIMUM, fmax(read_double(row + MAXIMUM), found->maximum));
}

/* Set rows to those of tensors without elements. */
void nissa_statistics_begin(int64_t *rows, int64_t number, int64_t width) {
  memset(rows, 0, (size_t)(number * width) * sizeof *rows);
  for (int64_t i = 0; i < number; i++) {
    write_double(rows + i * width + MINIMUM, INFINITY);
    write_double(rows + i * width + MAXIMUM, -INFINITY);
  }
}

/* Add tensors to rows, on up to `threads` threads; return 0, or -1 if there is not enough memory. */
int nissa_statistics_add(const Tensor *tensors, int64_t number, const Tables *doubles, const Tables *singles, int64_t *rows,
                         int64_t width, int threads) {
  const int64_t runs = count_runs(tensors, number);
  int64_t scratch = 0; /* bytes of the histograms of a thread */
  for (int64_t i = 0; i < number; i++) {
    const Tensor *tensor = tensors + i;
    int64_t bytes = tensor->dtype == FLOAT64 ? scratch_double(doubles) : scratch_single(singles);
    if (tallied(tensor->dtype, tensor->size, singles)) bytes += TALLIES * HALVES * (int64_t)sizeof(uint32_t);
    if (bytes > scratch) scratch = bytes;
  }
  const size_t bytes = (size_t)runs * (sizeof(Run) + sizeof(Found));
  Found *found = malloc(bytes ? bytes : 1);
  if (!found) return -1;
  Run *list = (Run *)(found + runs);
  list_runs(tensors, number, list);
  Call call = {tensors, doubles, singles, list, found, rows, width, threads > 1};
  const int failed = execute_runs(execute, &call, runs, threads, scratch);
  for (int64_t run = 0; run < runs && !failed; run++)
    add_run(rows + tensors[list[run].tensor].target * width, found + run, list[run].size);
  free(found);
  return failed;
}

/* Compute the columns that follow from others. */
void nissa_statistics_end(int64_t *rows, int64_t number, int64_t width) {
  for (int64_t i = 0; i < number; i++) {
    int64_t *row = rows + i * width;
    const double minimum = read_double(row + MINIMUM), maximum = read_double(row + MAXIMUM);
    const int none = minimum > maximum; /* no element is finite */
    write_double(row + MINIMUM, none ? NAN : minimum);
    write_double(row + MAXIMUM, none ? NAN : maximum);
    write_double(row + ABS_MAX, none ? NAN : fmax(maximum, -minimum));
  }
}
