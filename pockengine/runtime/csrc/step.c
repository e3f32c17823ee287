/* The interpreter: inputs checked and copied in, calls run, the guard checked before the first
 * update. */
#include "arity.h"
#include "float_mode.h"
#include "format.h"
#include "pockengine.h"

#include <string.h>

/* One call with its operands resolved to addresses. */
typedef struct bound_call {
  pe_kernel kernel;
  uint32_t arity;
  void* at[PE_MAX_OPERANDS];
} bound_call;

static int32_t invoke(void* arg, int64_t begin, int64_t end) {
  const bound_call* call = arg;
  const pe_kernel kernel = call->kernel;
  void* const* a = call->at;
  switch (call->arity) {
    PE_CASE(1)
    PE_CASE(2) PE_CASE(3) PE_CASE(4) PE_CASE(5) PE_CASE(6) PE_CASE(7) PE_CASE(8) PE_CASE(9)
        PE_CASE(10) PE_CASE(11) PE_CASE(12) PE_CASE(13) PE_CASE(14) PE_CASE(15) PE_CASE(16)
            PE_CASE(17) PE_CASE(18) PE_CASE(19) PE_CASE(20) PE_CASE(21) PE_CASE(22) PE_CASE(23)
                PE_CASE(24) PE_CASE(25) PE_CASE(26) PE_CASE(27) PE_CASE(28) PE_CASE(29) PE_CASE(30)
                    PE_CASE(31) PE_CASE(32) default : return PE_BAD_DESCRIPTOR;
  }
}

static unsigned char* address(const pe_trainer* t, uint64_t operand) {
  return t->regions[PE_OPERAND_REGION(operand)] + PE_OPERAND_OFFSET(operand);
}

static int32_t run_call(const pe_trainer* t, const pe_call* call) {
  bound_call bound;
  const uint64_t* operands = t->operands + call->first_operand;
  bound.kernel = t->kernels[call->kernel];
  bound.arity = call->arity;
  for (uint32_t i = 0; i < call->arity; ++i) bound.at[i] = address(t, operands[i]);
  if (call->grain == 0 || call->extent <= (int64_t)call->grain || !t->launcher.parallel)
    return invoke(&bound, 0, call->extent);
  return t->launcher.parallel(t->launcher.ctx, invoke, &bound, call->extent, call->grain);
}

static int32_t fail(pe_trainer* t, int32_t code, const pe_port* port, uint64_t element) {
  t->fault.code = code;
  t->fault.element = element;
  if (port) {
    t->fault.port = t->names + port->name;
    t->fault.low = port->low;
    t->fault.high = port->high;
  }
  return code;
}

/* The bits of element i of 2 or 4 bytes; data need not be aligned. */
static uint32_t bits_at(const unsigned char* data, uint64_t i, size_t bytes) {
  uint32_t wide = 0;
  uint16_t narrow = 0;
  if (bytes == 4) return memcpy(&wide, data + 4 * i, 4), wide;
  return memcpy(&narrow, data + 2 * i, 2), narrow;
}

/* The first element whose exponent bits are all set, or size. Blocks without one are passed at the
 * speed of memory: the loop over a block has no exit, so it becomes vector code. */
static uint64_t first_not_finite(const unsigned char* data, uint64_t size, size_t bytes,
                                 uint32_t exponent) {
  for (uint64_t from = 0; from < size; from += 1024) {
    uint64_t to = size - from < 1024 ? size : from + 1024;
    uint32_t found = 0;
    if (bytes == 4)
      for (uint64_t i = from; i < to; ++i) found |= (bits_at(data, i, 4) & exponent) == exponent;
    else
      for (uint64_t i = from; i < to; ++i) found |= (bits_at(data, i, 2) & exponent) == exponent;
    if (!found) continue;
    while ((bits_at(data, from, bytes) & exponent) != exponent) ++from;
    return from;
  }
  return size;
}

static double not_finite_value(uint32_t bits, size_t bytes, uint32_t exponent) {
  uint32_t sign = (uint32_t)1 << (8 * bytes - 1);
  uint32_t wide = (bits & sign ? 0x80000000u : 0) | 0x7f800000u;
  float value;
  if (bits & ~(sign | exponent)) wide |= 0x00400000u; /* a NaN */
  memcpy(&value, &wide, sizeof value);
  return value;
}

static int32_t check_finite(pe_trainer* t, const pe_port* port, const unsigned char* data,
                            int32_t code) {
  size_t bytes = port->dtype == PE_F32 ? 4 : 2;
  uint32_t exponent = port->dtype == PE_F32    ? 0x7f800000u
                      : port->dtype == PE_BF16 ? 0x7f80u
                                               : 0x7c00u;
  uint64_t at = first_not_finite(data, port->size, bytes, exponent);
  if (at == port->size) return PE_OK;
  t->fault.real = not_finite_value(bits_at(data, at, bytes), bytes, exponent);
  return fail(t, code, port, at);
}

static int64_t integer_at(const unsigned char* data, uint64_t i, uint8_t dtype) {
  int64_t wide;
  int32_t narrow;
  if (dtype == PE_I64) return memcpy(&wide, data + 8 * i, 8), wide;
  if (dtype == PE_I32) return memcpy(&narrow, data + 4 * i, 4), narrow;
  if (dtype == PE_I8) return (int8_t)data[i];
  return data[i];
}

static int32_t check_index(pe_trainer* t, const pe_port* port, const unsigned char* data) {
  for (uint64_t i = 0; i < port->size; ++i) {
    int64_t value = integer_at(data, i, port->dtype);
    if (value >= port->low && value < port->high) continue;
    if (port->has_ignore && value == port->ignore) continue;
    t->fault.integer = value;
    return fail(t, PE_INPUT_OUT_OF_RANGE, port, i);
  }
  return PE_OK;
}

static int32_t check_input(pe_trainer* t, const pe_port* port, const void* data) {
  if (data == NULL) return fail(t, PE_BAD_POINTER, port, 0);
  if (port->check == PE_CHECK_FINITE) return check_finite(t, port, data, PE_INPUT_NOT_FINITE);
  if (port->check == PE_CHECK_INDEX) return check_index(t, port, data);
  return PE_OK;
}

static size_t port_bytes(const pe_port* port) {
  return (size_t)port->size << pe_dtype_shift(port->dtype);
}

/* A region of no bytes may be NULL, which memcpy never takes. */
static void copy(void* to, const void* from, size_t bytes) {
  if (bytes) memcpy(to, from, bytes);
}

static int32_t take_inputs(pe_trainer* t, const pe_entry* entry, const void* const inputs[]) {
  const pe_port* ports = (const pe_port*)t->ports + entry->first_port;
  for (uint32_t i = 0; i < entry->inputs; ++i) {
    int32_t status = check_input(t, ports + i, inputs[i]);
    if (status) return status;
  }
  for (uint32_t i = 0; i < entry->inputs; ++i)
    copy(address(t, ports[i].operand), inputs[i], port_bytes(ports + i));
  return PE_OK;
}

static void give_outputs(const pe_trainer* t, const pe_entry* entry, void* const outputs[]) {
  const pe_port* ports = (const pe_port*)t->ports + entry->first_port + entry->inputs;
  for (uint32_t i = 0; i < entry->outputs; ++i)
    if (outputs[i]) copy(outputs[i], address(t, ports[i].operand), port_bytes(ports + i));
}

/* What a kernel's failure means depends on whether updates have begun. */
static int32_t kernel_failed(pe_trainer* t, const pe_entry* entry, uint32_t index, int32_t status) {
  t->fault.call = index;
  t->fault.integer = status;
  if (entry->commit == PE_NONE || index < entry->commit) return fail(t, PE_KERNEL_FAILED, NULL, 0);
  t->torn = 1;
  return fail(t, PE_TORN, NULL, 0);
}

static int32_t run_calls(pe_trainer* t, const pe_entry* entry, double ms[], double (*clock)(void)) {
  const pe_call* calls = (const pe_call*)t->calls + entry->first_call;
  uint32_t round = entry->calls / entry->rounds, commit = entry->commit;
  for (uint32_t i = 0; i < entry->calls; ++i) {
    double start = 0;
    int32_t status;
    if (i == commit && entry->guard != PE_NONE) {
      commit += round;
      const pe_port* guard = (const pe_port*)t->ports + entry->guard;
      status = check_finite(t, guard, address(t, guard->operand), PE_LOSS_NOT_FINITE);
      if (status) return status;
    }
    if (ms) start = clock();
    status = run_call(t, calls + i);
    if (ms) ms[i] = clock() - start;
    if (status) return kernel_failed(t, entry, i, status);
  }
  return PE_OK;
}

int32_t pe_run_timed(pe_trainer* self, int32_t entry, const void* const inputs[],
                     void* const outputs[], double ms_per_call[], double (*clock_ms)(void)) {
  const pe_header* h = self->header;
  const pe_entry* row = self->entries;
  pe_float_mode mode;
  int32_t status;
  memset(&self->fault, 0, sizeof self->fault);
  self->fault.entry = (uint32_t)entry;
  if (self->torn) return fail(self, PE_TORN, NULL, 0);
  if (entry < 0 || (uint32_t)entry >= h->entries) return fail(self, PE_NO_ENTRY, NULL, 0);
  row += entry;
  status = take_inputs(self, row, inputs);
  if (status) return status;
  mode = pe_float_mode_flush();
  status = run_calls(self, row, clock_ms ? ms_per_call : NULL, clock_ms);
  pe_float_mode_set(mode);
  if (!status) give_outputs(self, row, outputs);
  return status;
}

int32_t pe_run(pe_trainer* self, int32_t entry, const void* const inputs[], void* const outputs[]) {
  return pe_run_timed(self, entry, inputs, outputs, NULL, NULL);
}
