/* `true` without a C library, whose start would be added to every contender's time. */
#define END(number) __asm__ volatile("syscall" : : "a"(number), "D"(0) : "rcx", "r11", "memory")

void _start(void)
{
#ifdef __x86_64__
	END(231); /* exit_group */
#else
	register long number __asm__("x8") = 94;
	register long status __asm__("x0") = 0;
	__asm__ volatile("svc 0" : : "r"(number), "r"(status));
#endif
	for (;;)
		;
}
