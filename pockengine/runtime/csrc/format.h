/* The descriptor's bytes. Little-endian; every section begins at a multiple of 8, in the order of
 * the counts in the header: kernels, calls, operands, ports, entries, pages, names.
 * pockengine/runtime/descriptor.py writes the same. */
#ifndef POCKENGINE_FORMAT_H
#define POCKENGINE_FORMAT_H

#include <stdint.h>

#define PE_MAGIC "PockEng"
#define PE_NONE UINT32_MAX
#define PE_CHECKED_FROM 16u /* the checksum covers all from this byte on */

enum { PE_F32, PE_BF16, PE_F16, PE_I8, PE_I32, PE_I64, PE_U8, PE_BOOL, PE_DTYPES };
enum { PE_CHECK_NONE, PE_CHECK_FINITE, PE_CHECK_INDEX, PE_CHECKS };

/* The bytes of an element, as a power of two. */
static inline unsigned pe_dtype_shift(uint8_t dtype) {
  static const uint8_t shift[PE_DTYPES] = {2, 1, 1, 0, 2, 3, 0, 0};
  return shift[dtype];
}

typedef struct pe_header {
  char magic[8];
  uint32_t version, checksum;
  uint64_t bytes;
  uint64_t region_bytes[4];
  uint32_t region_align;
  uint32_t kernels, calls, operands, ports, entries, pages, name_bytes;
} pe_header;

typedef struct pe_kernel_row {
  uint32_t name; /* offset in the names */
  uint32_t arity;
} pe_kernel_row;

typedef struct pe_call {
  uint32_t kernel, first_operand, arity;
  uint32_t grain; /* least iterations of a piece; 0: never cut */
  int64_t extent;
} pe_call;

/* An operand is the region in the two top bits and the byte offset in the others. */
#define PE_OPERAND_REGION(operand) ((unsigned)((operand) >> 62))
#define PE_OPERAND_OFFSET(operand) ((operand) & (UINT64_MAX >> 2))

typedef struct pe_port {
  uint32_t name;
  uint8_t dtype, check, has_ignore, reserved;
  uint64_t operand;
  uint64_t size; /* elements */
  int64_t low, high, ignore;
} pe_port;

typedef struct pe_entry {
  uint32_t name, first_call, calls;
  uint32_t commit; /* the first call that updates a param or state, or PE_NONE */
  uint32_t first_port, inputs, outputs;
  uint32_t guard; /* a port, or PE_NONE */
  uint32_t rounds; /* of calls alike, one for each micro-batch */
  uint32_t reserved;
} pe_entry;

typedef struct pe_page {
  uint32_t call, out;
  uint64_t operand, storage_offset, bytes;
} pe_page;

#endif
