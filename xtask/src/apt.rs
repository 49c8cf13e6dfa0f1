//! What the build, the tests and the benchmarks need from Debian, installed if absent.

use std::process::Command;

use crate::run::{Result, Runner, fail};
use crate::say;

/// A program (or file) and the package that brings it.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    /// A command to be found in `PATH`, or an absolute path.
    pub what: &'static str,
    /// The package.
    pub package: &'static str,
    /// Why it is needed.
    pub why: &'static str,
}

/// What compiling `bale` needs: some crates bring C code.
pub const BUILD: &[Need] = &[
    Need { what: "cc", package: "gcc", why: "to link, and for the C code in the crates ring and zstd" },
    Need { what: "/usr/include/stdio.h", package: "libc6-dev", why: "the static C library" },
    Need {
        what: "/etc/ssl/certs/ca-certificates.crt",
        package: "ca-certificates",
        why: "to reach the package registries",
    },
];

/// Installs what is absent.
pub fn ensure(runner: &mut Runner, needs: &[Need]) -> Result<()> {
    let absent: Vec<&Need> = needs.iter().filter(|need| !is_here(need.what)).collect();
    if absent.is_empty() {
        return Ok(());
    }
    let mut packages: Vec<&str> = absent.iter().map(|need| need.package).collect();
    packages.dedup();
    for need in &absent {
        say(&format!("  {} is not here ({}): package {}", need.what, need.why, need.package));
    }
    if !rustix::process::geteuid().is_root() {
        return fail(format!("install them first (needs root): apt-get install -y {}", packages.join(" ")));
    }
    if !is_here("apt-get") {
        return fail(format!("there is no apt-get; install by other means: {}", packages.join(" ")));
    }
    let install = |runner: &mut Runner| {
        say(&format!("$ apt-get install -y --no-install-recommends {}", packages.join(" ")));
        let mut command = apt_get();
        command.args(["install", "-y", "--no-install-recommends"]).args(&packages);
        runner.run(&mut command)
    };
    // A bare system has no package lists, or old ones.
    if install(runner)?.code != 0 {
        say("$ apt-get update");
        runner.run(apt_get().arg("update"))?.success()?;
        install(runner)?.success()?;
    }
    Ok(())
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.arg("-qq").env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C.UTF-8");
    command
}

/// Tells whether a command is in `PATH`, or a file is there.
pub fn is_here(what: &str) -> bool {
    if what.starts_with('/') {
        return std::path::Path::new(what).exists();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(what).is_file())
}
