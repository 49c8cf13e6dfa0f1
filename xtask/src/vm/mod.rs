//! `cargo xtask vm`: what this machine cannot show, shown in a virtual one: systemd as the first process, every
//! controller of cgroup v2, AppArmor, every capability.
//!
//! ```text
//! host                                       guest (Debian, systemd)
//! mmdebstrap ─► target/vm/image ─ snapshot ─► /
//! the project, target/          ─ 9p, ro ───► the same paths
//! target/vm/run-PID/vm          ─ 9p, rw ───► /vm: run (the command), code (its exit status)
//! standard output               ◄ a port ──── the command's output
//! ```
//!
//! `cargo xtask vm power-cut` kills it while bale fills a store, and looks what is left.
//! `cargo xtask vm test` builds the tests that need such a host, and runs them there. (A command of the name `test` is
//! reached by `cargo xtask vm -- test`.)
//!
//! There is no network in it. What is run is built on the host; the project's binaries are static.

mod image;
mod initrd;
mod machine;
mod power_cut;
pub mod tests;

use std::path::PathBuf;

use bale_testkit::command::quoted;

use crate::apt::{self, Need};
use crate::cargo;
use crate::run::{Failure, Result, Runner, fail};

pub use image::Image;
use machine::{Ends, Machine};

const USAGE: &str = "\
cargo xtask vm                      a shell in a virtual machine: Debian with systemd, cgroup v2, AppArmor
cargo xtask vm [--] CMD [ARG...]    runs CMD there, with the project's folder to read, and passes its exit status on
cargo xtask vm test [WORD...]       runs the tests that need such a host (--with runc|crun: against that)
cargo xtask vm power-cut [MS...]    ends it without warning while bale fills a store, and looks what is left";

/// What making and running the machine needs.
const NEEDS: &[Need] = &[
    Need { what: "qemu-system-x86_64", package: "qemu-system-x86", why: "the virtual machine" },
    Need { what: "mmdebstrap", package: "mmdebstrap", why: "to make its system" },
    Need { what: "mke2fs", package: "e2fsprogs", why: "to make its disk" },
    Need { what: "xz", package: "xz-utils", why: "its kernel's modules are packed with it" },
    Need { what: "setpriv", package: "util-linux", why: "to end it with its maker" },
    Need {
        what: "/usr/share/keyrings/debian-archive-keyring.gpg",
        package: "debian-archive-keyring",
        why: "Debian's signatures",
    },
];

/// What `cargo xtask vm` does.
pub fn main(words: &[&str]) -> Result<()> {
    if matches!(words, ["--help" | "-h"]) {
        crate::say(USAGE);
        return Ok(());
    }
    if !rustix::process::geteuid().is_root() {
        return fail("making the system of the virtual machine needs root");
    }
    let dir = dir();
    let mut runner = Runner::new(&dir)?;
    let image = prepare(&mut runner)?;
    let command = if words.first() == Some(&"--") { &words[1..] } else { words };
    if let Some((&"power-cut", rest)) = words.split_first() {
        return power_cut::run(&mut runner, &image, rest);
    }
    let code = if let Some((&"test", rest)) = words.split_first() {
        let script = tests::script(&mut runner, &tests::Choice::read(rest)?)?;
        let mut machine = Machine::new(&image, &dir, &script, Ends::Output)?;
        runner.watch(machine.start())?;
        machine.code()?
    } else if command.is_empty() {
        let script = "exec setsid --ctty --wait login -f root </dev/hvc0 >/dev/hvc0 2>&1";
        let mut machine = Machine::new(&image, &dir, script, Ends::Console)?;
        runner.attached(machine.start())?;
        machine.code()?
    } else {
        let script = command.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ");
        let mut machine = Machine::new(&image, &dir, &script, Ends::Output)?;
        runner.watch(machine.start())?;
        machine.code()?
    };
    if code == 0 { Ok(()) } else { Err(Failure::Ended(code)) }
}

/// Installs what the machine needs, and makes its system if that is not there.
pub fn prepare(runner: &mut Runner) -> Result<Image> {
    apt::ensure(runner, NEEDS)?;
    image::ready(runner, &dir())
}

/// The folder of everything here.
fn dir() -> PathBuf {
    cargo::target().join("vm")
}
