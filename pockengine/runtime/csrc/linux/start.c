/* Start-up of a Linux program without a C library, by system calls alone: it links in a moment for
 * any processor, where building a C library takes minutes, and it runs under user-mode emulation.
 */
#include <stddef.h>
#include <stdint.h>

int main(void);
void pe_say(const char* text);
void pe_start(void);

#if defined(__x86_64__)
enum { SYS_WRITE = 1, SYS_EXIT = 60 };
__asm__(".globl _start\n_start:\n  and $-16, %rsp\n  call pe_start\n");
static long system_call(long number, long a, long b, long c) {
  long result;
  __asm__ __volatile__("syscall"
                       : "=a"(result)
                       : "a"(number), "D"(a), "S"(b), "d"(c)
                       : "rcx", "r11", "memory");
  return result;
}

#elif defined(__aarch64__)
enum { SYS_WRITE = 64, SYS_EXIT = 93 };
__asm__(".globl _start\n_start:\n  bl pe_start\n");
static long system_call(long number, long a, long b, long c) {
  register long x8 __asm__("x8") = number;
  register long x0 __asm__("x0") = a;
  register long x1 __asm__("x1") = b;
  register long x2 __asm__("x2") = c;
  __asm__ __volatile__("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
  return x0;
}

#elif defined(__riscv)
enum { SYS_WRITE = 64, SYS_EXIT = 93 };
__asm__(
    ".globl _start\n_start:\n.option push\n.option norelax\n"
    "  lla gp, __global_pointer$\n.option pop\n  call pe_start\n");
static long system_call(long number, long a, long b, long c) {
  register long a7 __asm__("a7") = number;
  register long a0 __asm__("a0") = a;
  register long a1 __asm__("a1") = b;
  register long a2 __asm__("a2") = c;
  __asm__ __volatile__("ecall" : "+r"(a0) : "r"(a7), "r"(a1), "r"(a2) : "memory");
  return a0;
}

#else
#error "write the system call of this processor"
#endif

void pe_say(const char* text) {
  size_t bytes = 0;
  while (text[bytes]) ++bytes;
  system_call(SYS_WRITE, 1, (long)(intptr_t)text, (long)bytes);
}

__attribute__((used)) void pe_start(void) {
  int status = main();
  for (;;) system_call(SYS_EXIT, status, 0, 0);
}
