/* Tensors as Python passes them, and the values of their elements. */
#ifndef NISSA_TENSORS_H
#define NISSA_TENSORS_H

#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

/* Functions with such an attribute use these instructions, and are called only on processors that have them. Tests define
   NO_AVX or NO_AVX512 to run what other processors run. */
#if defined(__x86_64__) && !defined(NO_AVX)
#define AVX2 __attribute__((target("avx2,fma,f16c")))
#define AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma,f16c")))

INLINE int has_avx2(void) {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}

INLINE int has_avx512(void) {
#ifdef NO_AVX512
  return 0;
#else
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl") && has_avx2();
#endif
}
#endif

enum { BLOCK = 1024 }; /* elements that are processed at a time, so that their decoded values stay in the L1 cache */

/* Element types; the values are those of nissa.kernels.native. */
enum { FLOAT64, FLOAT32, FLOAT16, BFLOAT16, BYTES };

/* Tensor without gaps: a row of an int64 array. */
typedef struct {
  const char *data;
  int64_t size;
  int64_t dtype;
  int64_t target; /* row of the result, or address of a copy (0: none) */
} Tensor;

INLINE int64_t item_size(int64_t dtype) { return dtype == FLOAT64 ? 8 : dtype == FLOAT32 ? 4 : dtype == BYTES ? 1 : 2; }

INLINE float half_to_float(uint16_t half) {
  const uint32_t magnitude = half & 0x7fff;
  /* Rebias the exponent; the larger offset maps infinity and NaN to those of float. A subnormal is a multiple of the
     smallest one. No intermediate float is subnormal, because a processor may be set to treat these as zero. */
  const uint32_t bits = (magnitude << 13) + ((magnitude < 0x7c00 ? 112u : 224u) << 23);
  float normal;
  memcpy(&normal, &bits, sizeof normal);
  const float value = magnitude >= 0x400 ? normal : (float)(int32_t)magnitude * 0x1p-24f;
  return half & 0x8000 ? -value : value;
}

INLINE const float *load_single(const char *data, int64_t dtype, int64_t size, float *decoded) {
  if (dtype == FLOAT32) return (const float *)data;
  const uint16_t *halves = (const uint16_t *)data;
  if (dtype == FLOAT16) {
    for (int64_t i = 0; i < size; i++) decoded[i] = half_to_float(halves[i]);
  } else {
    for (int64_t i = 0; i < size; i++) {
      const uint32_t bits = (uint32_t)halves[i] << 16;
      memcpy(decoded + i, &bits, sizeof bits);
    }
  }
  return decoded;
}

INLINE const double *load_double(const char *data, int64_t dtype, int64_t size, double *decoded) {
  (void)dtype, (void)size, (void)decoded;
  return (const double *)data;
}

#endif
