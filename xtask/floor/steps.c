/*
 * Runs a command one instruction at a time, its children too until they execute something else, and writes every
 * address of the (static) program that was executed into FILE, each once, in the order of their first time.
 *
 *   steps FILE COMMAND [ARGUMENT...]
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

/* Where the linker puts a program that is not position independent. */
#define LOWEST 0x200000UL
#define HIGHEST 0x4000000UL

static unsigned char seen[HIGHEST - LOWEST];

int main(int count, char **words)
{
	FILE *file = count > 2 ? fopen(words[1], "w") : NULL;
	pid_t first = file ? fork() : -1;
	int status, living = 1;

	if (first < 0)
		return 125;
	if (!first) {
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		raise(SIGSTOP);
		execv(words[2], words + 2);
		_exit(127);
	}
	waitpid(first, &status, 0);
	ptrace(PTRACE_SETOPTIONS, first, 0,
		PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL);
	ptrace(PTRACE_SINGLESTEP, first, 0, 0);
	while (living > 0) {
		pid_t pid = waitpid(-1, &status, __WALL);
		if (pid < 0)
			break;
		if (WIFEXITED(status) || WIFSIGNALED(status)) {
			living--;
			continue;
		}
		int signal = WSTOPSIG(status), event = status >> 16;
		if (event == PTRACE_EVENT_CLONE || event == PTRACE_EVENT_FORK)
			living++;
		if (event == PTRACE_EVENT_EXEC && pid != first) {
			ptrace(PTRACE_DETACH, pid, 0, 0);
			living--;
			continue;
		}
		if (event || signal == SIGTRAP || signal == SIGSTOP)
			signal = 0;
		unsigned long at = ptrace(PTRACE_PEEKUSER, pid, offsetof(struct user_regs_struct, rip), 0);
		if (at >= LOWEST && at < HIGHEST && !seen[at - LOWEST]) {
			seen[at - LOWEST] = 1;
			fprintf(file, "%lx\n", at);
		}
		ptrace(PTRACE_SINGLESTEP, pid, 0, signal);
	}
	return fclose(file) ? 125 : 0;
}
