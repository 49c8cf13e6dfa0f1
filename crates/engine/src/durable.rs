//! Making layers survive a power cut, without anybody waiting for a disk.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use bale_fault::Result;
use bale_store::Store;

use crate::Engine;

/// The kernel writes what is dirty after 30 s (`vm.dirty_expire_centisecs`), so a sync of older layers finds little to
/// do. A layer that never becomes durable costs nothing but being unpacked again after the next boot.
const AGE: Duration = Duration::from_secs(60);

impl Engine {
    /// Syncs the layers that wait for it and says so in the store. It may take many seconds.
    ///
    /// # Errors
    /// The failed call.
    pub fn make_durable(&self) -> Result<()> {
        self.store()?.make_durable(AGE)
    }

    /// Starts `bale @sync` for layers of earlier pulls. It is not waited for; that it fails is nobody's failure, as
    /// the next pull tries again.
    pub(crate) fn make_durable_soon(&self, store: &Store) {
        if !store.has_undurable(AGE).unwrap_or(false) {
            return;
        }
        let mut command = Command::new("/proc/self/exe");
        command.args(["@sync".as_ref(), "--dir".as_ref(), self.root().as_os_str()]).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        #[allow(clippy::zombie_processes, reason = "it outlives this process, which ends soon")]
        let _ = command.spawn();
    }
}
