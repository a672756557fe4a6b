/* z: exit(0) in three instructions, without a C library. The cheapest payload there is: what is left is the start itself.
 * cc -nostdlib -static -o z true.S
 */
    .globl _start
_start:
#if defined(__x86_64__)
    mov $60, %eax /* SYS_exit */
    xor %edi, %edi
    syscall
#elif defined(__aarch64__)
    mov x8, #93 /* SYS_exit */
    mov x0, #0
    svc #0
#else
#error "add the three instructions of this architecture"
#endif
    .section .note.GNU-stack, "", %progbits
