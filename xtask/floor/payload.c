/*
 * What the measured containers run, by the name it is called: `true` ends at once, `stamp` prints the monotonic clock
 * in nanoseconds and ends, `stay` waits for SIGTERM.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

int main(int count, char **words)
{
	const char *name = count > 0 && strrchr(words[0], '/') ? strrchr(words[0], '/') + 1 : words[0];

	if (!strcmp(name, "stamp")) {
		struct timespec now;
		clock_gettime(CLOCK_MONOTONIC, &now);
		printf("%lld\n", (long long)now.tv_sec * 1000000000LL + now.tv_nsec);
	} else if (!strcmp(name, "stay")) {
		sigset_t ending;
		int signal;
		sigemptyset(&ending);
		sigaddset(&ending, SIGTERM);
		/* Blocked, not ignored: the first process of a pid namespace would not even get it otherwise. */
		sigprocmask(SIG_BLOCK, &ending, 0);
		sigwait(&ending, &signal);
	}
	return 0;
}
