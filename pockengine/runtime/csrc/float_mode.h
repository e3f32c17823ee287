/* Flush-to-zero: inside a step subnormal numbers count as zero, as their arithmetic is a hundred
 * times slower on many processors. Each thread has a mode of its own; the caller's is restored
 * after a step. */
#ifndef POCKENGINE_FLOAT_MODE_H
#define POCKENGINE_FLOAT_MODE_H

#include <stdint.h>

#if defined(__x86_64__) || defined(__SSE2__)
#include <xmmintrin.h>
typedef uint32_t pe_float_mode;
static inline pe_float_mode pe_float_mode_get(void) { return _mm_getcsr(); }
static inline void pe_float_mode_set(pe_float_mode mode) { _mm_setcsr(mode); }
#define PE_FLUSH_BITS 0x8040u /* flush to zero, denormals are zero */

#elif defined(__aarch64__)
typedef uint64_t pe_float_mode;
static inline pe_float_mode pe_float_mode_get(void) {
  uint64_t mode;
  __asm__ __volatile__("mrs %0, fpcr" : "=r"(mode));
  return mode;
}
static inline void pe_float_mode_set(pe_float_mode mode) {
  __asm__ __volatile__("msr fpcr, %0" : : "r"(mode) : "memory");
}
#define PE_FLUSH_BITS ((uint64_t)1 << 24)

#elif defined(__arm__) && defined(__ARM_FP)
typedef uint32_t pe_float_mode;
static inline pe_float_mode pe_float_mode_get(void) {
  uint32_t mode;
  __asm__ __volatile__("vmrs %0, fpscr" : "=r"(mode));
  return mode;
}
static inline void pe_float_mode_set(pe_float_mode mode) {
  __asm__ __volatile__("vmsr fpscr, %0" : : "r"(mode) : "memory");
}
#define PE_FLUSH_BITS ((uint32_t)1 << 24)

#else /* RISC-V and WebAssembly have no such mode */
typedef uint32_t pe_float_mode;
static inline pe_float_mode pe_float_mode_get(void) { return 0; }
static inline void pe_float_mode_set(pe_float_mode mode) { (void)mode; }
#define PE_FLUSH_BITS 0u
#endif

/* Flush from now on; returns what to hand to pe_float_mode_set afterwards. */
static inline pe_float_mode pe_float_mode_flush(void) {
  pe_float_mode before = pe_float_mode_get();
  pe_float_mode_set(before | PE_FLUSH_BITS);
  return before;
}

#endif
