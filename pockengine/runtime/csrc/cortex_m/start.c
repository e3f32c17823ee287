/* Start-up of a Cortex-M under a debugger or an emulator: vector table, memory set up as the linker
 * script says, text and exit by semihosting (Arm's "Semihosting for AArch32 and AArch64",
 * operations 0x04, 0x18). Written for Cortex-M4F and M7; nothing of a C library is needed. */
#include <stddef.h>
#include <stdint.h>

enum { SYS_WRITE0 = 0x04, SYS_EXIT = 0x18 };
enum { APPLICATION_EXIT = 0x20026, RUN_TIME_ERROR = 0x20023 };

enum { PAINT = 0xa5a5a5a5, MARGIN_WORDS = 64 }; /* the margin: what runs while painting */

extern uint32_t pe_stack_top[], pe_data_begin[], pe_data_end[], pe_data_load[], pe_bss_begin[],
    pe_bss_end[];

int main(void);
void pe_say(const char* text);
void pe_reset(void);

static void semihost(uint32_t operation, uintptr_t argument) {
  register uint32_t r0 __asm__("r0") = operation;
  register uintptr_t r1 __asm__("r1") = argument;
  __asm__ __volatile__("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
}

static void leave(int failed) {
  semihost(SYS_EXIT, failed ? RUN_TIME_ERROR : APPLICATION_EXIT);
  for (;;) {}
}

void pe_say(const char* text) { semihost(SYS_WRITE0, (uintptr_t)text); }

static void fault(void) {
  pe_say("error: processor fault\n");
  leave(1);
}

/* Fills the memory below the stack with a pattern, which says afterwards how deep the stack went. */
static void paint_stack(void) {
  volatile uint32_t here = 0;
  for (volatile uint32_t* at = pe_bss_end; at < &here - MARGIN_WORDS; ++at) *at = PAINT;
}

static void say_stack(void) {
  char text[] = "stack 0x00000000\n";
  const uint32_t* at = pe_bss_end;
  while (at < pe_stack_top && *at == PAINT) ++at;
  uint32_t bytes = (uint32_t)((uintptr_t)pe_stack_top - (uintptr_t)at);
  for (int i = 0; i < 8; ++i) text[8 + i] = "0123456789abcdef"[bytes >> (28 - 4 * i) & 15u];
  pe_say(text);
}

/* Coprocessor access control: full access to the floating-point unit (Armv7-M, B3.2.20). */
static void enable_float(void) {
  *(volatile uint32_t*)0xe000ed88u |= 0xfu << 20;
  __asm__ __volatile__("dsb\n isb" : : : "memory");
}

void pe_reset(void) {
  const uint32_t* from = pe_data_load;
  for (uint32_t* to = pe_data_begin; to < pe_data_end;) *to++ = *from++;
  for (uint32_t* to = pe_bss_begin; to < pe_bss_end;) *to++ = 0;
  enable_float();
  paint_stack();
  int failed = main();
  if (!failed) say_stack();
  leave(failed);
}

__attribute__((section(".vectors"), used)) static const void* const vectors[16] = {
    pe_stack_top,
    (const void*)pe_reset,
    (const void*)fault,
    (const void*)fault,
    (const void*)fault,
    (const void*)fault,
    (const void*)fault,
    NULL,
    NULL,
    NULL,
    NULL,
    (const void*)fault,
    (const void*)fault,
    NULL,
    (const void*)fault,
    (const void*)fault,
};
