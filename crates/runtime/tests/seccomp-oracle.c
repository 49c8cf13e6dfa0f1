/*
 * What libseccomp makes of a profile, for the test `libseccomp_decides_the_same` of src/seccomp.
 *
 * Build: cc -O1 -o seccomp-oracle seccomp-oracle.c -lseccomp     (Debian: libseccomp-dev, 2.5 or later)
 * Use:   BALE_SECCOMP_ORACLE=./seccomp-oracle cargo test -p bale-runtime libseccomp
 *
 * Reads profiles, one word list a line: `default ANSWER`, `arch NAME`, `rule ANSWER CALL [INDEX OP A B]...`, and
 * `end`, upon which the program is written to stdout: its length in bytes (u32), then struct sock_filter[].
 */
#define _GNU_SOURCE
#include <seccomp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static char *word(void) { return strtok(NULL, " \n"); }

static int add_rule(scmp_filter_ctx filter)
{
	uint32_t answer = strtoul(word(), NULL, 0);
	const char *name = word();
	struct scmp_arg_cmp args[6];
	unsigned n = 0;
	for (char *index; n < 6 && (index = word()); n++) {
		args[n].arg = atoi(index);
		args[n].op = atoi(word());
		args[n].datum_a = strtoull(word(), NULL, 0);
		args[n].datum_b = strtoull(word(), NULL, 0);
	}
	int number = seccomp_syscall_resolve_name(name);
	if (number == __NR_SCMP_ERROR)
		return 0;
	return seccomp_rule_add_array(filter, answer, number, n, args);
}

static int export(scmp_filter_ctx filter)
{
	char buffer[8 * 4096 * 4];
	int fd = memfd_create("bpf", 0);
	if (fd < 0 || seccomp_export_bpf(filter, fd))
		return 1;
	uint32_t length = pread(fd, buffer, sizeof buffer, 0);
	close(fd);
	fwrite(&length, sizeof length, 1, stdout);
	fwrite(buffer, length, 1, stdout);
	return 0;
}

int main(void)
{
	static char line[65536];
	scmp_filter_ctx filter = NULL;
	while (fgets(line, sizeof line, stdin)) {
		const char *verb = strtok(line, " \n");
		int failed = 0;
		if (!verb)
			continue;
		if (!strcmp(verb, "default"))
			failed = !(filter = seccomp_init(strtoul(word(), NULL, 0)));
		else if (!strcmp(verb, "arch"))
			failed = seccomp_arch_add(filter, seccomp_arch_resolve_name(word()));
		else if (!strcmp(verb, "rule"))
			failed = add_rule(filter);
		else if (!strcmp(verb, "end"))
			failed = export(filter), seccomp_release(filter);
		if (failed) {
			fprintf(stderr, "%s: %d\n", verb, failed);
			return 1;
		}
	}
	return 0;
}
