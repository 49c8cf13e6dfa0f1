//! System call filters: the profile of a config becomes a BPF program.

use bale_fault::{Fault, Kind, Result};
use bale_spec::runtime::Seccomp;
use bale_sys::seccomp::{Flags, Instruction};

/// A compiled filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// What [`bale_sys::seccomp::load`] takes.
    pub instructions: Vec<Instruction>,
    /// Its flags; `NEW_LISTENER` is among them when some rule notifies.
    pub flags: Flags,
}

impl Program {
    /// Tells whether loading it gives a listener, to be sent to the profile's `listenerPath`.
    #[must_use]
    pub const fn has_listener(&self) -> bool {
        self.flags.contains(Flags::NEW_LISTENER)
    }
}

/// Compiles a profile.
///
/// # Errors
/// `InvalidInput` names the JSON path of what is wrong; `Unsupported` what the kernel lacks.
pub fn compile(_profile: &Seccomp) -> Result<Program> {
    Err(Fault::new(Kind::Unsupported, "seccomp is not there yet"))
}

/// Returns Docker's default profile for a container with these capabilities (`CAP_…`).
#[must_use]
pub fn docker_default(_capabilities: &[String]) -> Seccomp {
    Seccomp { default_action: "SCMP_ACT_ALLOW".to_owned(), ..Seccomp::default() }
}
