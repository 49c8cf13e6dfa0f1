//! The virtual machine: qemu's command line, the folder through which host and guest talk, and the end.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bale_testkit::command::quoted;
use bale_testkit::scratch::remove_tree;

use rustix::fs::Mode;

use super::image::Image;
use crate::cargo;
use crate::run::{Result, fail};

/// Memory of the machine, in mebibytes.
const MEMORY_MIB: u32 = 2048;
const QEMU: &str = "qemu-system-x86_64";
/// What the kernel is told: little on the console, no second look at an emulated processor, no test of
/// timers (which fails where the host is too busy to let them tick in time), no waiting after a panic.
const KERNEL: &str = "console=ttyS0 loglevel=4 panic=-1 no_timer_check mitigations=off nokaslr audit=0 random.trust_cpu=on \
                      systemd.show_status=no security=apparmor apparmor=1";

/// What standard input and output are connected with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// The command's output.
    Output,
    /// A console that somebody sits at.
    Console,
}

/// A machine that can be started once; its folder goes away with it.
#[derive(Debug)]
pub struct Machine {
    dir: PathBuf,
    qemu: Command,
}

impl Machine {
    /// Prepares a machine that runs `script` as root and powers off.
    pub fn new(image: &Image, below: &Path, script: &str, ends: Ends) -> Result<Self> {
        let dir = below.join(format!("run-{}", std::process::id()));
        remove_tree(&dir)?;
        fs::create_dir_all(&dir)?;
        let mut machine = Self { dir, qemu: Command::new("setpriv") };
        machine.write_folder(script, ends)?;
        machine.command(image, ends)?;
        Ok(machine)
    }

    /// Returns the folder that is `/vm` in the machine, the only one that can be written there.
    pub fn folder(&self) -> PathBuf {
        self.dir.join("vm")
    }

    /// Adds the disk `/dev/vdb`. When qemu is killed, what the guest has not written out is lost, as in a power cut.
    pub fn add_disk(&mut self, file: &Path) {
        let drive = format!("if=none,id=added,format=raw,cache=writeback,file={}", comma(file));
        self.qemu.args(["-drive", &drive, "-device", "virtio-blk-pci,drive=added"]);
    }

    /// Returns the command that is the machine.
    pub const fn start(&mut self) -> &mut Command {
        &mut self.qemu
    }

    /// Returns the exit status of the script.
    pub fn code(&self) -> Result<i32> {
        let text = fs::read_to_string(self.folder().join("code")).unwrap_or_default();
        text.trim().parse().map_or_else(
            |_| {
                fail(format!(
                    "the virtual machine ended before the command did. Its last words:\n{}",
                    self.words()
                ))
            },
            Ok,
        )
    }

    /// What qemu and the machine's console said last.
    fn words(&self) -> String {
        let read = |name: &str| fs::read(self.dir.join(name)).unwrap_or_default();
        let said = [read("qemu"), read("console")].concat();
        let said = String::from_utf8_lossy(&said).replace('\r', "");
        let lines: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    fn write_folder(&self, script: &str, ends: Ends) -> Result<()> {
        let folder = self.folder();
        fs::create_dir(&folder)?;
        let shares: String =
            shared().iter().enumerate().map(|(at, path)| format!("p{at} {}\n", path.display())).collect();
        fs::write(folder.join("shares"), shares)?;
        let run = folder.join("run");
        fs::write(&run, run_script(script, ends))?;
        Ok(fs::set_permissions(run, fs::Permissions::from_mode(0o755))?)
    }

    fn command(&mut self, image: &Image, ends: Ends) -> Result<()> {
        let words = File::create(self.dir.join("qemu"))?;
        let console = self.dir.join("console");
        let folder = self.folder();
        let qemu = &mut self.qemu;
        // Whatever becomes of us, no machine is left behind.
        qemu.args(["--pdeathsig", "KILL"]);
        match ends {
            Ends::Console => qemu.arg(QEMU),
            Ends::Output => {
                // At an end of its input qemu takes the port's other side for closed, and the guest waits for a
                // reader. Here is a pipe without an end: qemu is its writer too.
                let idle = self.dir.join("idle");
                rustix::fs::mkfifoat(rustix::fs::CWD, &idle, Mode::RUSR | Mode::WUSR)
                    .map_err(std::io::Error::from)?;
                qemu.args(["sh", "-c", &format!("exec {QEMU} \"$@\" <>\"$0\"")]).arg(idle)
            }
        };
        qemu.args(["-no-user-config", "-nodefaults", "-display", "none", "-no-reboot"]);
        qemu.args(["-machine", "q35", "-cpu", "max", "-accel", accelerator()]);
        qemu.args(["-smp", "2", "-m", &MEMORY_MIB.to_string()]);
        qemu.arg("-kernel").arg(image.kernel()).arg("-initrd").arg(image.initrd()).args(["-append", KERNEL]);
        // Nothing that is written reaches the file: every run begins with the same system.
        let disk =
            format!("if=none,id=system,format=raw,snapshot=on,cache=unsafe,file={}", comma(&image.disk()));
        qemu.args(["-drive", &disk, "-device", "virtio-blk-pci,drive=system"]);
        qemu.args([
            "-chardev",
            &format!("file,id=console,path={}", comma(&console)),
            "-serial",
            "chardev:console",
        ]);
        qemu.args(["-device", "virtio-serial-pci", "-chardev", "stdio,id=ends,signal=off"]);
        qemu.args([
            "-device",
            match ends {
                Ends::Output => "virtserialport,chardev=ends,name=bale",
                Ends::Console => "virtconsole,chardev=ends",
            },
        ]);
        share(qemu, "vm", &folder, "");
        for (at, path) in shared().iter().enumerate() {
            share(qemu, &format!("p{at}"), path, ",readonly=on");
        }
        qemu.stderr(Stdio::from(words));
        Ok(())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = remove_tree(&self.dir);
    }
}

/// By the processor where it can; emulated otherwise. There are hosts whose `/dev/kvm` opens and which cannot run a
/// kernel that does not know them: their processors have neither of the two extensions.
///
/// Emulated by one thread, its processors in turn: where each has a thread, one now and then runs half of an instruction
/// that the other is just writing. The guest's kernel rewrites its own code whenever it switches on something new (the
/// first cpu quota: an oops in `enqueue_entity`). Two threads are no faster here.
pub fn accelerator() -> &'static str {
    let open = File::options().read(true).write(true).open("/dev/kvm").is_ok();
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let extended = processor.split_whitespace().any(|flag| flag == "vmx" || flag == "svm");
    if open && extended { "kvm" } else { "tcg,thread=single,tb-size=512" }
}

/// The folders that are in the machine under the same name, to be read: the project, and where it is built.
fn shared() -> Vec<PathBuf> {
    let (project, target) = (cargo::workspace(), cargo::target());
    let outside = !target.starts_with(&project);
    [Some(project), outside.then_some(target)].into_iter().flatten().collect()
}

fn share(qemu: &mut Command, tag: &str, path: &Path, extra: &str) {
    let folder = format!("local,id={tag},security_model=none,multidevs=remap,path={}{extra}", comma(path));
    qemu.args(["-fsdev", &folder, "-device", &format!("virtio-9p-pci,fsdev={tag},mount_tag={tag}")]);
}

/// A path within one of qemu's lists, where a comma is written twice.
fn comma(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

fn run_script(script: &str, ends: Ends) -> String {
    let connect = match ends {
        Ends::Output => {
            "for port in /sys/class/virtio-ports/*; do\n    \
             [ \"$(cat \"$port/name\")\" = bale ] && exec </dev/null >\"/dev/${port##*/}\" 2>&1\ndone\n"
        }
        Ends::Console => "",
    };
    let project = quoted(&cargo::workspace().display().to_string());
    format!(
        "#!/bin/sh\n{connect}\
         export HOME=/root LC_ALL=C.UTF-8 BALE_VM=1\n\
         export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n\
         cd {project}\n\
         (\n{script}\n)\n\
         echo $? >/vm/code\n\
         echo o >/proc/sysrq-trigger\n\
         sleep 60\n"
    )
}
