/* The descriptor: checked once, wholly, so that running it needs no checks. */
#include "format.h"
#include "pockengine.h"

#include <string.h>

/* Where the sections begin, in bytes; `end` is the size the header stands for. */
typedef struct layout {
  uint64_t kernels, calls, operands, ports, entries, pages, names, end;
} layout;

static layout layout_of(const pe_header* h) {
  layout at;
  at.kernels = sizeof(pe_header);
  at.calls = at.kernels + (uint64_t)h->kernels * sizeof(pe_kernel_row);
  at.operands = at.calls + (uint64_t)h->calls * sizeof(pe_call);
  at.ports = at.operands + (uint64_t)h->operands * sizeof(uint64_t);
  at.entries = at.ports + (uint64_t)h->ports * sizeof(pe_port);
  at.pages = at.entries + (uint64_t)h->entries * sizeof(pe_entry);
  at.names = at.pages + (uint64_t)h->pages * sizeof(pe_page);
  at.end = at.names + h->name_bytes;
  return at;
}

/* CRC-32 as in zlib, four bits at a time: 64 bytes of table. */
static uint32_t checksum(const unsigned char* data, uint64_t bytes) {
  static const uint32_t table[16] = {0x00000000u, 0x1db71064u, 0x3b6e20c8u, 0x26d930acu,
                                     0x76dc4190u, 0x6b6b51f4u, 0x4db26158u, 0x5005713cu,
                                     0xedb88320u, 0xf00f9344u, 0xd6d6a3e8u, 0xcb61b38cu,
                                     0x9b64c2b0u, 0x86d3d2d4u, 0xa00ae278u, 0xbdbdf21cu};
  uint32_t crc = UINT32_MAX;
  for (uint64_t i = 0; i < bytes; ++i) {
    crc ^= data[i];
    crc = table[crc & 15u] ^ (crc >> 4);
    crc = table[crc & 15u] ^ (crc >> 4);
  }
  return ~crc;
}

static int same_text(const char* a, const char* b) {
  while (*a && *a == *b) ++a, ++b;
  return *a == *b;
}

static int32_t check_header(const void* descriptor, size_t bytes) {
  const pe_header* h = descriptor;
  if (descriptor == NULL || bytes < sizeof(pe_header)) return PE_TRUNCATED;
  if ((uintptr_t)descriptor % PE_DESCRIPTOR_ALIGN) return PE_UNALIGNED_DESCRIPTOR;
  if (!same_text(PE_MAGIC, h->magic)) return PE_BAD_MAGIC;
  if (h->version != PE_FORMAT_VERSION) return PE_BAD_VERSION;
  if (h->bytes != bytes) return PE_TRUNCATED;
  if (checksum((const unsigned char*)descriptor + PE_CHECKED_FROM, bytes - PE_CHECKED_FROM) !=
      h->checksum)
    return PE_BAD_CHECKSUM;
  if (layout_of(h).end != bytes || h->name_bytes % 8) return PE_BAD_DESCRIPTOR;
  if (h->region_align < 8 || (h->region_align & (h->region_align - 1))) return PE_BAD_DESCRIPTOR;
  for (int r = 0; r < PE_REGIONS; ++r)
    if (h->region_bytes[r] > SIZE_MAX / 4) return PE_BAD_DESCRIPTOR;
  return PE_OK;
}

static int is_name(const pe_trainer* t, uint32_t name) {
  const pe_header* h = t->header;
  return name < h->name_bytes && t->names[h->name_bytes - 1] == 0;
}

static int check_matches(const pe_port* port) {
  int is_float = port->dtype <= PE_F16;
  int is_integer = port->dtype >= PE_I8 && port->dtype <= PE_U8;
  if (port->check == PE_CHECK_FINITE) return is_float;
  if (port->check == PE_CHECK_INDEX) return is_integer;
  return port->check < PE_CHECKS;
}

static int32_t check_ports(const pe_trainer* t) {
  const pe_header* h = t->header;
  const pe_port* port = t->ports;
  for (const pe_port* end = port + h->ports; port < end; ++port) {
    uint64_t limit = h->region_bytes[PE_OPERAND_REGION(port->operand)];
    uint64_t offset = PE_OPERAND_OFFSET(port->operand);
    if (port->dtype >= PE_DTYPES || port->has_ignore > 1 || port->reserved)
      return PE_BAD_DESCRIPTOR;
    if (!check_matches(port) || !is_name(t, port->name)) return PE_BAD_DESCRIPTOR;
    if (offset > limit || offset & ((1u << pe_dtype_shift(port->dtype)) - 1))
      return PE_BAD_DESCRIPTOR;
    if (port->size > (limit - offset) >> pe_dtype_shift(port->dtype)) return PE_BAD_DESCRIPTOR;
  }
  return PE_OK;
}

static int32_t check_calls(const pe_trainer* t) {
  const pe_header* h = t->header;
  const pe_kernel_row* rows = t->kernel_names;
  const pe_call* call = t->calls;
  for (uint32_t i = 0; i < h->kernels; ++i)
    if (!is_name(t, rows[i].name) || rows[i].arity > PE_MAX_OPERANDS) return PE_BAD_DESCRIPTOR;
  for (const pe_call* end = call + h->calls; call < end; ++call) {
    if (call->kernel >= h->kernels || call->extent < 0) return PE_BAD_DESCRIPTOR;
    if (call->arity == 0 || call->arity != rows[call->kernel].arity) return PE_BAD_DESCRIPTOR;
    if ((uint64_t)call->first_operand + call->arity > h->operands) return PE_BAD_DESCRIPTOR;
  }
  for (uint32_t i = 0; i < h->operands; ++i) {
    uint64_t limit = h->region_bytes[PE_OPERAND_REGION(t->operands[i])];
    if (PE_OPERAND_OFFSET(t->operands[i]) > limit) return PE_BAD_DESCRIPTOR;
  }
  return PE_OK;
}

/* The guard is read and inputs are written before the first update: hence the arena, hence a
 * commit. */
static int32_t check_entries(const pe_trainer* t) {
  const pe_header* h = t->header;
  const pe_port* ports = t->ports;
  const pe_entry* entry = t->entries;
  for (const pe_entry* end = entry + h->entries; entry < end; ++entry) {
    if (!is_name(t, entry->name)) return PE_BAD_DESCRIPTOR;
    if ((uint64_t)entry->first_call + entry->calls > h->calls) return PE_BAD_DESCRIPTOR;
    if ((uint64_t)entry->first_port + entry->inputs + entry->outputs > h->ports)
      return PE_BAD_DESCRIPTOR;
    if (!entry->rounds || entry->calls % entry->rounds) return PE_BAD_DESCRIPTOR;
    if (entry->commit != PE_NONE && entry->commit >= entry->calls / entry->rounds)
      return PE_BAD_DESCRIPTOR;
    for (uint32_t i = 0; i < entry->inputs; ++i)
      if (PE_OPERAND_REGION(ports[entry->first_port + i].operand) != PE_REGIONS - 1)
        return PE_BAD_DESCRIPTOR;
    if (entry->guard == PE_NONE) continue;
    if (entry->guard >= h->ports || entry->commit == PE_NONE) return PE_BAD_DESCRIPTOR;
    if (ports[entry->guard].dtype != PE_F32) return PE_BAD_DESCRIPTOR;
  }
  return PE_OK;
}

int32_t pe_region_sizes(const void* descriptor, size_t bytes, uint64_t sizes[PE_REGIONS],
                        uint32_t* alignment) {
  const pe_header* h = descriptor;
  int32_t status = check_header(descriptor, bytes);
  if (status) return status;
  memcpy(sizes, h->region_bytes, sizeof h->region_bytes);
  *alignment = h->region_align;
  return PE_OK;
}

static void bind_sections(pe_trainer* self, const void* descriptor) {
  const unsigned char* base = descriptor;
  layout at = layout_of(descriptor);
  self->descriptor = base;
  self->header = descriptor;
  self->kernel_names = base + at.kernels;
  self->calls = base + at.calls;
  self->operands = (const uint64_t*)(const void*)(base + at.operands);
  self->ports = base + at.ports;
  self->entries = base + at.entries;
  self->names = (const char*)base + at.names;
}

static int32_t bind_memory(pe_trainer* self, const pe_kernel* kernels, size_t kernel_count,
                           void* const regions[PE_REGIONS]) {
  const pe_header* h = self->header;
  if (kernel_count != h->kernels || (kernels == NULL && kernel_count)) return PE_BAD_KERNELS;
  for (size_t i = 0; i < kernel_count; ++i)
    if (!kernels[i]) return PE_BAD_KERNELS;
  self->kernels = kernels;
  for (int r = 0; r < PE_REGIONS; ++r) {
    if (h->region_bytes[r] && regions[r] == NULL) return PE_BAD_REGION;
    if ((uintptr_t)regions[r] % h->region_align) return PE_BAD_REGION;
    self->regions[r] = regions[r];
  }
  return PE_OK;
}

int32_t pe_open(pe_trainer* self, const void* descriptor, size_t bytes, const pe_kernel* kernels,
                size_t kernel_count, void* const regions[PE_REGIONS], const pe_launcher* launcher) {
  int32_t status = check_header(descriptor, bytes);
  if (status) return status;
  memset(self, 0, sizeof *self);
  bind_sections(self, descriptor);
  if ((status = check_calls(self))) return status;
  if ((status = check_ports(self))) return status;
  if ((status = check_entries(self))) return status;
  if (((const pe_header*)self->header)->pages) return PE_PAGES_UNSUPPORTED;
  if (launcher) self->launcher = *launcher;
  return bind_memory(self, kernels, kernel_count, regions);
}

int32_t pe_entry_find(const pe_trainer* self, const char* name) {
  const pe_header* h = self->header;
  const pe_entry* entries = self->entries;
  for (uint32_t i = 0; i < h->entries; ++i)
    if (same_text(self->names + entries[i].name, name)) return (int32_t)i;
  return PE_NO_ENTRY;
}

const pe_fault* pe_last_error(const pe_trainer* self) { return &self->fault; }
int32_t pe_is_torn(const pe_trainer* self) { return self->torn; }
void pe_clear_torn(pe_trainer* self) { self->torn = 0; }

const char* pe_error_text(int32_t code) {
  static const char* const texts[] = {
      "success",
      "this is not a PockEngine descriptor",
      "the descriptor has another format version",
      "the descriptor is truncated or has bytes too many",
      "the descriptor is damaged: its checksum is wrong",
      "a field of the descriptor is out of range",
      "the kernel table does not match the descriptor",
      "a memory region is missing or not aligned",
      "the descriptor asks for paging, which this runtime cannot do",
      "the descriptor is not aligned to 8 bytes",
      "there is no such entry point",
      "an input is missing",
      "an input holds a value that is not finite",
      "a label or index is out of range",
      "the loss is not finite",
      "a kernel failed before the first update",
      "an earlier step failed between updates: load the parameters anew",
  };
  uint32_t index = (uint32_t)-(int64_t)code;
  return index < sizeof texts / sizeof texts[0] ? texts[index] : "unknown error";
}
