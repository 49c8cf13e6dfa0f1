//! The system of the virtual machine: a Debian with systemd, made once and kept.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use bale_testkit::scratch::remove_tree;

use super::initrd;
use crate::run::{Result, Runner, fail};
use crate::say;

const SUITE: &str = "trixie";
/// The kernel for all machines, as the one for clouds lacks 9p; runc and crun are there to prove the tests.
const PACKAGES: &[&str] = &[
    "apparmor",
    "busybox-static",
    "crun",
    "dbus",
    "dbus-user-session",
    "e2fsprogs",
    "iproute2",
    "kmod",
    "libpam-systemd",
    "linux-image-amd64",
    "procps",
    "runc",
    "strace",
    "systemd",
    "systemd-sysv",
    "udev",
    "uidmap",
];
/// Four fifths of what the packages would bring: nothing of it is there in the machine.
const LEFT_OUT: &[&str] = &[
    "/usr/share/doc/*",
    "/usr/share/man/*",
    "/usr/share/locale/*",
    "/usr/lib/modules/*/kernel/sound/*",
    "/usr/lib/modules/*/kernel/net/bluetooth/*",
    "/usr/lib/modules/*/kernel/net/mac80211/*",
    "/usr/lib/modules/*/kernel/drivers/comedi/*",
    "/usr/lib/modules/*/kernel/drivers/gpu/*",
    "/usr/lib/modules/*/kernel/drivers/hid/*",
    "/usr/lib/modules/*/kernel/drivers/hwmon/*",
    "/usr/lib/modules/*/kernel/drivers/iio/*",
    "/usr/lib/modules/*/kernel/drivers/infiniband/*",
    "/usr/lib/modules/*/kernel/drivers/input/*",
    "/usr/lib/modules/*/kernel/drivers/media/*",
    "/usr/lib/modules/*/kernel/drivers/mmc/*",
    "/usr/lib/modules/*/kernel/drivers/mtd/*",
    "/usr/lib/modules/*/kernel/drivers/net/ethernet/*",
    "/usr/lib/modules/*/kernel/drivers/net/wireless/*",
    "/usr/lib/modules/*/kernel/drivers/platform/*",
    "/usr/lib/modules/*/kernel/drivers/scsi/*",
    "/usr/lib/modules/*/kernel/drivers/staging/*",
    "/usr/lib/modules/*/kernel/drivers/usb/*",
    "/usr/lib/modules/*/kernel/drivers/video/*",
];
/// Units that a machine of this kind has no use for, and that take seconds where a processor is emulated.
const MASKED: &[&str] = &[
    "apparmor.service",
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty@tty1.service",
    "kmod-static-nodes.service",
    "ldconfig.service",
    "modprobe@configfs.service",
    "modprobe@drm.service",
    "modprobe@efi_pstore.service",
    "modprobe@fuse.service",
    "serial-getty@hvc0.service",
    "serial-getty@ttyS0.service",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-hwdb-update.service",
    "systemd-journal-catalog-update.service",
    "systemd-pcrphase.service",
    "systemd-random-seed.service",
    "systemd-remount-fs.service",
    "systemd-sysusers.service",
    "systemd-tpm2-setup-early.service",
    "systemd-tpm2-setup.service",
    "systemd-udev-load-credentials.service",
    "systemd-udev-trigger.service",
    "systemd-update-done.service",
    "systemd-update-utmp.service",
];
const SERVICE: &str = include_str!("guest/bale-vm.service");
const TARGET: &str = include_str!("guest/bale-vm.target");
/// Raised when what is done below changes.
const VERSION: u32 = 1;
const SIZE_BYTES: u64 = 2 << 30;

/// The files of a system that is ready to boot.
#[derive(Debug)]
pub struct Image {
    dir: PathBuf,
}

impl Image {
    /// Returns the kernel.
    pub fn kernel(&self) -> PathBuf {
        self.dir.join("vmlinuz")
    }

    /// Returns the initial root.
    pub fn initrd(&self) -> PathBuf {
        self.dir.join("initrd")
    }

    /// Returns the disk.
    pub fn disk(&self) -> PathBuf {
        self.dir.join("system.ext4")
    }
}

/// Returns the system in `dir/image`, made when it is not there or was made by another recipe than today's.
pub fn ready(runner: &mut Runner, dir: &Path) -> Result<Image> {
    fs::create_dir_all(dir)?;
    let lock = File::create(dir.join("image.lock"))?;
    lock.lock()?;
    let image = Image { dir: dir.join("image") };
    let recipe = recipe();
    if fs::read_to_string(image.dir.join("recipe")).is_ok_and(|made_by| made_by == recipe) {
        return Ok(image);
    }
    let draft = dir.join("image.draft");
    remove_tree(&draft)?;
    let made = make(runner, &draft, &recipe);
    if made.is_err() {
        remove_tree(&draft)?;
    }
    made?;
    remove_tree(&image.dir)?;
    fs::rename(&draft, &image.dir)?;
    Ok(image)
}

/// Everything that decides what is in the system, but the day on which the packages are fetched.
fn recipe() -> String {
    let lists = [PACKAGES, LEFT_OUT, MASKED].map(|list| list.join(" ")).join("\n");
    let init = include_str!("guest/init.sh");
    format!("version {VERSION}\n{SUITE}\n{lists}\n{SIZE_BYTES}\n{SERVICE}{TARGET}{init}")
}

fn make(runner: &mut Runner, draft: &Path, recipe: &str) -> Result<()> {
    let tree = draft.join("tree");
    fs::create_dir_all(&tree)?;
    say(&format!(
        "making the system of the virtual machine: Debian {SUITE} with systemd (once, about a minute)"
    ));
    install(runner, &tree)?;
    configure(&tree)?;
    fs::write(draft.join("initrd"), initrd::make(runner, &tree)?)?;
    let kernel = find(&tree.join("boot"), "vmlinuz-")?;
    fs::copy(kernel, draft.join("vmlinuz"))?;
    remove_tree(&tree.join("boot"))?;
    let disk = draft.join("system.ext4");
    File::create(&disk)?.set_len(SIZE_BYTES)?;
    // Nothing of it outlives a run, so there is nothing that a journal would keep.
    let mut mke2fs = Command::new("mke2fs");
    mke2fs.args(["-q", "-F", "-t", "ext4", "-O", "^has_journal", "-d"]).args([&tree, &disk]);
    runner.run(&mut mke2fs)?.success()?;
    remove_tree(&tree)?;
    Ok(fs::write(draft.join("recipe"), recipe)?)
}

fn install(runner: &mut Runner, tree: &Path) -> Result<()> {
    let mut command = Command::new("mmdebstrap");
    // The kernel's package would make an initial root that nobody uses.
    command.env("INITRD", "No").env("LC_ALL", "C.UTF-8");
    command.args(["--quiet", "--variant=minbase", &format!("--include={}", PACKAGES.join(","))]);
    command.args([
        "--aptopt=APT::Install-Recommends \"false\"",
        "--aptopt=Acquire::Check-Valid-Until \"false\"",
    ]);
    command.args(LEFT_OUT.iter().map(|path| format!("--dpkgopt=path-exclude={path}")));
    command.arg(SUITE).arg(tree);
    runner.run(&mut command)?.success().map(drop)
}

fn configure(tree: &Path) -> Result<()> {
    let units = tree.join("etc/systemd/system");
    fs::write(units.join("bale-vm.service"), SERVICE)?;
    fs::write(units.join("bale-vm.target"), TARGET)?;
    for (name, to) in
        MASKED.iter().map(|name| (*name, "/dev/null")).chain([("default.target", "bale-vm.target")])
    {
        let link = units.join(name);
        let _ = fs::remove_file(&link);
        std::os::unix::fs::symlink(to, &link)?;
    }
    fs::write(tree.join("etc/hostname"), "bale-vm\n")?;
    fs::write(tree.join("etc/fstab"), "")?;
    // For sessions of a user: uid 1000.
    let user = "user:x:1000:1000::/home/user:/bin/sh\n";
    append(&tree.join("etc/passwd"), user)?;
    append(&tree.join("etc/group"), "user:x:1000:\n")?;
    append(&tree.join("etc/shadow"), "user:*:20000:0:99999:7:::\n")?;
    append(&tree.join("etc/subuid"), "user:100000:65536\n")?;
    append(&tree.join("etc/subgid"), "user:100000:65536\n")?;
    let home = tree.join("home/user");
    fs::create_dir_all(&home)?;
    Ok(std::os::unix::fs::chown(&home, Some(1000), Some(1000))?)
}

fn append(file: &Path, text: &str) -> Result<()> {
    let before = fs::read_to_string(file).unwrap_or_default();
    Ok(fs::write(file, before + text)?)
}

fn find(dir: &Path, prefix: &str) -> Result<PathBuf> {
    let named =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix));
    let found = fs::read_dir(dir)?.flatten().map(|entry| entry.path()).find(named);
    found.map_or_else(|| fail(format!("no {prefix}* in {}", dir.display())), Ok)
}
