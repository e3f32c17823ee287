/* PockEngine's runtime: runs a compiled trainer.
 *
 * A trainer is a constant descriptor, a table of kernels and four regions of memory. The caller
 * owns all of them; nothing here allocates, starts threads, opens files or keeps state of its own.
 * The same core runs on a host, a phone, in a browser and on a microcontroller; what an operating
 * system adds (threads, a clock) is in os_posix.c and reaches the core through pe_launcher.
 *
 * Functions return 0 or a negative code of enum pe_code.
 */
#ifndef POCKENGINE_H
#define POCKENGINE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
  PE_REGIONS = 4,          /* const, param, state, arena */
  PE_MAX_OPERANDS = 32,    /* of one kernel */
  PE_DESCRIPTOR_ALIGN = 8, /* bytes; a descriptor is read in place, from flash if need be */
  PE_FORMAT_VERSION = 2
};

enum pe_code {
  PE_OK = 0,
  PE_BAD_MAGIC = -1,         /* not a descriptor */
  PE_BAD_VERSION = -2,       /* a descriptor of another format version */
  PE_TRUNCATED = -3,         /* fewer or more bytes than the descriptor says */
  PE_BAD_CHECKSUM = -4,      /* the bytes were damaged */
  PE_BAD_DESCRIPTOR = -5,    /* a field is out of range */
  PE_BAD_KERNELS = -6,       /* the kernel table is too short or has a hole */
  PE_BAD_REGION = -7,        /* a region is missing or not aligned */
  PE_PAGES_UNSUPPORTED = -8, /* the descriptor asks for paging, which this runtime cannot do */
  PE_UNALIGNED_DESCRIPTOR = -9,
  PE_NO_ENTRY = -10,           /* no entry point of that index or name */
  PE_BAD_POINTER = -11,        /* an input is NULL */
  PE_INPUT_NOT_FINITE = -12,   /* an input holds NaN or infinity: nothing was changed */
  PE_INPUT_OUT_OF_RANGE = -13, /* a label or an index is out of range: nothing was changed */
  PE_LOSS_NOT_FINITE = -14,    /* the loss is NaN or infinite: no parameter was changed */
  PE_KERNEL_FAILED = -15, /* a kernel failed before the first update: no parameter was changed */
  PE_TORN = -16           /* a step failed between updates: parameters are unusable until loaded */
};

/* A kernel: int32_t k(void* operands..., int64_t begin, int64_t end), cast to this type. It works
 * on [begin, end) of its outer loop; its result must not depend on how the whole range is cut. */
typedef void (*pe_kernel)(void);

typedef int32_t (*pe_body)(void* arg, int64_t begin, int64_t end);

/* Runs body over [0, extent) in pieces of at least grain, possibly at once; returns 0 or a body's
 * failure. */
typedef struct pe_launcher {
  void* ctx;
  int32_t (*parallel)(void* ctx, pe_body body, void* arg, int64_t extent, int64_t grain);
} pe_launcher;

/* What was wrong with the last call of pe_run. */
typedef struct pe_fault {
  int32_t code;
  uint32_t entry;    /* index of the entry point */
  uint32_t call;     /* the call that failed, within the entry point */
  const char* port;  /* name of the input or guard at fault, or NULL */
  uint64_t element;  /* its flat index */
  int64_t integer;   /* its value, where the port holds integers; a kernel's own code */
  double real;       /* its value, where the port holds reals */
  int64_t low, high; /* the permitted range [low, high) of integers */
} pe_fault;

/* A trainer. The fields are the runtime's own; the struct is here so that its owner can place it.
 */
typedef struct pe_trainer {
  const unsigned char* descriptor;
  const void* header;
  const void* kernel_names;
  const void* calls;
  const uint64_t* operands;
  const void* ports;
  const void* entries;
  const char* names;
  const pe_kernel* kernels;
  unsigned char* regions[PE_REGIONS];
  pe_launcher launcher;
  int32_t torn;
  pe_fault fault;
} pe_trainer;

/* The bytes each region takes and the alignment of its first byte, before anything is open. */
int32_t pe_region_sizes(const void* descriptor, size_t bytes, uint64_t sizes[PE_REGIONS],
                        uint32_t* alignment);

/* Checks the descriptor wholly and binds it. Everything passed has to outlive the trainer, but for
 * `regions` and `launcher`, which are copied. A region of zero bytes may be NULL.
 * A NULL launcher runs every kernel as one piece. */
int32_t pe_open(pe_trainer* self, const void* descriptor, size_t bytes, const pe_kernel* kernels,
                size_t kernel_count, void* const regions[PE_REGIONS], const pe_launcher* launcher);

/* The index of an entry point, or PE_NO_ENTRY. */
int32_t pe_entry_find(const pe_trainer* self, const char* name);

/* Runs an entry point once. inputs[i] and outputs[i] point to whole, dense ports of any alignment; an
 * output that is NULL is not wanted. Inputs are checked before anything is changed, the guard (the
 * loss) before the first update. */
int32_t pe_run(pe_trainer* self, int32_t entry, const void* const inputs[], void* const outputs[]);

/* As pe_run; ms_per_call[i] becomes what call i of the entry point took by `clock_ms`. */
int32_t pe_run_timed(pe_trainer* self, int32_t entry, const void* const inputs[],
                     void* const outputs[], double ms_per_call[], double (*clock_ms)(void));

/* Details of the last failure of pe_run. Valid until the next call. */
const pe_fault* pe_last_error(const pe_trainer* self);

/* Whether the trainer is torn; after param and state were loaded anew, it no longer is. */
int32_t pe_is_torn(const pe_trainer* self);
void pe_clear_torn(pe_trainer* self);

/* One English sentence, never NULL. */
const char* pe_error_text(int32_t code);

#ifdef __cplusplus
}
#endif
#endif
