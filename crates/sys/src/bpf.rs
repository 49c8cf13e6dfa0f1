//! bpf(2): the one kind of program that cgroup v2 needs, which decides about device access.
