//! bale as the runtime of today's engines: podman, docker, containerd's own shim, buildah and
//! Slurm, from Debian's packages.
//!
//! A transcript is a list of command lines with what they must answer. Each is played twice: with bale, and with the
//! runtime that the engine has from Debian, which shows that the transcript is right.
//!
//! | line | meaning |
//! |---|---|
//! | `# …` | remark |
//! | `$ …`, `> …` | command for `bash`, and its further lines |
//! | `\| …` | standard output |
//! | `= N` | exit code; 0 when absent |
//! | `~ …` | what standard error contains |
//!
//! The engines run in mount, pid and network namespaces of their own, with their files on a tmpfs there and their
//! cgroups below one of the test's. Without a tree of the engines the tests are left out, and that is counted;
//! `BALE_PEERS=make` makes one.

mod engines;
mod stage;
