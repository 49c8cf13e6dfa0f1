//! The initial root of the virtual machine: busybox, a script, and the modules to reach disk and shares.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::run::{Result, Runner, fail};

/// What Debian's kernel has as modules. (virtio's bus and its console are built in.)
const WANTED: &[&str] = &["crc32c_generic", "virtio_blk", "ext4", "9pnet_virtio", "9p"];
const INIT: &[u8] = include_bytes!("guest/init.sh");

/// Makes the archive from the system in `tree`.
pub fn make(runner: &mut Runner, tree: &Path) -> Result<Vec<u8>> {
    let modules = modules_dir(tree)?;
    let text = fs::read_to_string(modules.join("modules.dep"))?;
    let mut archive = Archive::default();
    for dir in ["bin", "modules"] {
        archive.add(dir, 0o040_755, b"");
    }
    archive.add("init", 0o100_755, INIT);
    archive.add("bin/busybox", 0o100_755, &fs::read(tree.join("usr/bin/busybox"))?);
    for (at, module) in in_order(&text, WANTED)?.iter().enumerate() {
        let bytes = plain(runner, &modules.join(module))?;
        archive.add(&format!("modules/{at:02}.ko"), 0o100_644, &bytes);
    }
    Ok(archive.finish())
}

/// The folder of the only kernel's modules.
fn modules_dir(tree: &Path) -> Result<PathBuf> {
    let all = tree.join("usr/lib/modules");
    let first = fs::read_dir(&all)?.flatten().next();
    first.map_or_else(|| fail(format!("no kernel in {}", all.display())), |entry| Ok(entry.path()))
}

/// Lists the files of modules in the order in which they can be loaded; one that is built in is in no list.
fn in_order(dependencies: &str, wanted: &[&str]) -> Result<Vec<String>> {
    let mut order: Vec<String> = Vec::new();
    for name in wanted {
        let line = dependencies.lines().find(|line| {
            let file = line.split(':').next().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
            file.split('.').next() == Some(name)
        });
        let Some((file, needs)) = line.and_then(|line| line.split_once(':')) else {
            return fail(format!("the kernel has no module {name}"));
        };
        // A line names what is needed from the nearest to the farthest.
        let needed = needs.split_whitespace().rev().chain([file]).map(str::to_owned);
        order.extend(needed.collect::<Vec<_>>());
    }
    let mut seen = std::collections::BTreeSet::new();
    order.retain(|file| seen.insert(file.clone()));
    Ok(order)
}

/// Unpacks a module: busybox loads plain ones only.
fn plain(runner: &mut Runner, module: &Path) -> Result<Vec<u8>> {
    if module.extension().is_none_or(|extension| extension != "xz") {
        return Ok(fs::read(module)?);
    }
    runner.run(Command::new("xz").args(["--decompress", "--keep", "--force"]).arg(module))?.success()?;
    Ok(fs::read(module.with_extension(""))?)
}

/// A cpio archive in the "newc" form (the kernel's driver-api/early-userspace/buffer-format.rst).
#[derive(Debug, Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    fn add(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        let name_bytes = name.len() + 1;
        let fields =
            [self.entries as usize, mode as usize, 0, 0, 1, 0, content.len(), 0, 0, 0, 0, name_bytes, 0];
        let header: String = fields.iter().map(|field| format!("{field:08X}")).collect();
        self.bytes.extend(b"070701");
        self.bytes.extend(header.as_bytes());
        self.bytes.extend(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.add("TRAILER!!!", 0, b"");
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_come_after_what_they_need() {
        let text = "k/crc16.ko.xz:\nk/jbd2.ko.xz:\nk/ext4.ko.xz: k/crc16.ko.xz k/jbd2.ko.xz\nk/9p.ko: k/netfs.ko\n\
                    k/netfs.ko:\n";
        let order = in_order(text, &["ext4", "9p", "jbd2"]).unwrap();
        assert_eq!(order, ["k/jbd2.ko.xz", "k/crc16.ko.xz", "k/ext4.ko.xz", "k/netfs.ko", "k/9p.ko"]);
        assert!(in_order(text, &["xfs"]).is_err());
    }

    #[test]
    fn the_archive_has_the_form_that_the_kernel_reads() {
        let mut archive = Archive::default();
        archive.add("a", 0o100_644, b"hello");
        let bytes = archive.finish();
        assert_eq!(&bytes[..6], b"070701");
        assert_eq!(&bytes[14..22], b"000081A4");
        assert_eq!(&bytes[54..62], b"00000005");
        assert_eq!(&bytes[110..117], b"a\0hello");
        assert_eq!(bytes.len() % 4, 0);
    }
}
