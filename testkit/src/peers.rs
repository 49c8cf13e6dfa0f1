//! The other tools of the field, to make images with and to read ours: in a tree of their own, never installed.
//!
//! The tree is the one that `BALE_PEERS` (or `PEERS_ROOT`) names by its path, or by the suite of Debian that it is to
//! be made of (`bookworm`); else the one that `cargo xtask test` has made in the tests' cache, or `/opt/peers/sid`.
//! Needs root: every call has private mount and pid namespaces with the tree as root.
//!
//! No package is configured in a tree that is made here: no script of theirs runs, as in images of services.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::debian::Debian;
use crate::image::cached;
use crate::{Scratch, service};

/// Why `cargo xtask test` leaves out the tests that need the tree.
pub const LEFT_OUT: &str = "BALE_PEERS_LEFT_OUT";

const NOT_YET: &str = "`cargo xtask test` makes it, BALE_PEERS names one or the suite to make it of";

/// Where a tree may be that was made by other means.
const USUAL: &str = "/opt/peers/sid";

/// What a tree must have to be taken as it is.
const PROGRAMS: &[&str] = &["skopeo", "umoci", "buildah", "podman", "dockerd", "docker-registry", "ctr"];

/// What a tree is made of; the packages of today's systems have no dependency on the small programs of a shell.
const PACKAGES: &[&str] = &[
    "base-files",
    "bash",
    "bsdutils",
    "buildah",
    "busybox-static",
    "ca-certificates",
    "conmon",
    "containerd",
    "coreutils",
    "crun",
    "dash",
    "diffutils",
    "docker.io",
    "docker-registry",
    "findutils",
    "grep",
    "gzip",
    "iproute2",
    "iptables",
    "libc-bin",
    "libcap2-bin",
    "mawk",
    "mount",
    "ncurses-base",
    "podman",
    "procps",
    "runc",
    "sed",
    "skopeo",
    "tar",
    "umoci",
    "util-linux",
    "zstd",
];

/// What some suites have in a package of its own, or not at all.
const MORE: &[&str] = &["docker-buildx", "docker-cli", "slurm-client", "slurmctld", "slurmd"];

/// Tried in turn: the versions of today that are known to go together, and the ones before them.
pub const SUITES: &[&str] = &["testing", "stable"];

/// Room that making a tree takes, for a time: twice what stays.
const ROOM_BYTES: u64 = 3 << 30;

/// Makes the tree `$TREE` the root of this mount namespace; the shared folders keep their paths.
const ENTER: &str = r#"
mount --bind "$TREE" "$TREE"
mount -t proc proc "$TREE/proc"
mount --rbind /dev "$TREE/dev"
mount --rbind /sys "$TREE/sys"
mount --rbind /tmp "$TREE/tmp"
mount -t tmpfs tmpfs "$TREE/run"
mkdir -p "$TREE/.old"
cd "$TREE"
pivot_root . .old
umount -l /.old
cd /tmp
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/run
exec bash -euo pipefail -c "$SCRIPT" peers "$@"
"#;

/// The tree.
#[derive(Clone, Debug)]
pub struct Peers {
    tree: PathBuf,
}

/// A program that runs in the tree until the value goes.
#[derive(Debug)]
pub struct Running(Child);

impl Peers {
    /// Finds the tree: the one that is named, made, or at its usual place. Without one, or where `cargo xtask test`
    /// was told to leave it out, the calling test is noted as left out.
    ///
    /// # Panics
    /// With apt's words, when `BALE_PEERS` names a suite and no tree can be made of it.
    #[must_use]
    pub fn find() -> Option<Self> {
        let why = match std::env::var(LEFT_OUT) {
            Ok(why) => why,
            Err(_) => match Self::named_or_made() {
                Ok(Some(peers)) => return Some(peers),
                Ok(None) => NOT_YET.to_owned(),
                Err(error) => panic!("the tree of the other tools: {error}"),
            },
        };
        crate::note_skip(&format!("needs the tree of the other tools: {why}"));
        None
    }

    /// Finds the tree that is named, or made already, or at its usual place.
    fn named_or_made() -> io::Result<Option<Self>> {
        match ["BALE_PEERS", "PEERS_ROOT"].iter().find_map(std::env::var_os).map(PathBuf::from) {
            Some(tree) if tree.is_absolute() => Self::at(tree).map(Some),
            Some(suite) => Self::of_suite(&suite.to_string_lossy()).map(Some),
            None => {
                let made = SUITES.iter().map(|suite| made_of(suite)).chain([PathBuf::from(USUAL)]);
                Ok(made.map(Self::at).find_map(Result::ok))
            }
        }
    }

    /// Takes the tree `tree`.
    fn at(tree: PathBuf) -> io::Result<Self> {
        let there =
            |name: &str| ["usr/bin", "usr/sbin"].iter().any(|dir| tree.join(dir).join(name).is_file());
        let absent: Vec<&str> = PROGRAMS.iter().copied().filter(|name| !there(name)).collect();
        if absent.is_empty() {
            return Ok(Self { tree });
        }
        Err(io::Error::other(format!("{} lacks {}", tree.display(), absent.join(" "))))
    }

    /// Finds the tree, or makes it of the first suite that can be had.
    ///
    /// # Errors
    /// Why not, in one line.
    pub fn find_or_make() -> io::Result<Self> {
        if let Some(peers) = Self::named_or_made()? {
            return Ok(peers);
        }
        let mut words = Vec::new();
        for suite in SUITES {
            match Self::of_suite(suite) {
                Ok(peers) => return Ok(peers),
                Err(error) => words.push(format!("{suite}: {}", brief(&error.to_string()))),
            }
        }
        Err(io::Error::other(words.join("; ")))
    }

    /// Finds the tree of a suite, or makes it.
    fn of_suite(suite: &str) -> io::Result<Self> {
        let cache = crate::cache_dir();
        let tree = cached(&cache, &label(suite), |dir| {
            want_room(dir)?;
            let debian = Debian::open_suite(&cache.join(format!("apt-{suite}")), suite)?;
            let mut names = PACKAGES.to_vec();
            for name in MORE {
                if debian.knows(name)? {
                    names.push(name);
                }
            }
            service::base_tree(&debian, &names, dir)?;
            fs::create_dir_all(dir.join("etc/containers"))?;
            fs::write(
                dir.join("etc/containers/policy.json"),
                r#"{"default":[{"type":"insecureAcceptAnything"}]}"#,
            )?;
            link_slurm(dir)?;
            debian.clean()
        })?;
        Self::at(tree)
    }

    /// Returns the tree's folder.
    #[must_use]
    pub fn tree(&self) -> &Path {
        &self.tree
    }

    /// Prepares a bash script (`-euo pipefail`) in the tree; `/tmp` is the host's.
    #[must_use]
    pub fn command<A: AsRef<OsStr>>(&self, script: &str, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]);
        command.args(["bash", "-euc", ENTER, "enter"]).args(arguments);
        command.env("TREE", &self.tree).env("SCRIPT", script).env("LC_ALL", "C.UTF-8");
        command
    }

    /// Runs a script to its end and returns what it wrote to standard output.
    ///
    /// # Errors
    /// What it wrote to standard error, when it fails.
    pub fn run<A: AsRef<OsStr>>(
        &self,
        script: &str,
        arguments: impl IntoIterator<Item = A>,
    ) -> io::Result<String> {
        let output = self.command(script, arguments).stdin(Stdio::null()).output()?;
        let [said, words] =
            [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        if output.status.success() {
            return Ok(said);
        }
        Err(io::Error::other(format!("{script}\n{}: {words}{said}", output.status)))
    }

    /// Starts a registry with its data in `scratch` and returns it with its address (`127.0.0.1:PORT`).
    ///
    /// # Errors
    /// When it does not answer within 20 seconds.
    pub fn registry(&self, scratch: &Scratch) -> io::Result<(Running, String)> {
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.to_string();
        let (data, config) = (scratch.join("registry"), scratch.join("registry.yml"));
        let text = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\n\
             http:\n  addr: {address}\n",
            data.display()
        );
        fs::write(&config, text)?;
        // It ends with our end of the pipe at the latest: a test that is killed must not leave it.
        let mut command =
            self.command("docker-registry serve \"$1\" </dev/null & read -r || true", [&config]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let running = Running(command.spawn()?);
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(&address).is_err() {
            if Instant::now() > deadline {
                return Err(io::Error::other(format!("docker-registry does not listen on {address}")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok((running, address))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // `unshare --kill-child` takes the rest of its pid namespace along.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Makes the links that the scripts of Slurm's packages make: its programs look for each other by these names.
fn link_slurm(tree: &Path) -> io::Result<()> {
    for name in ["slurmctld", "slurmd", "slurmstepd"] {
        let (link, program) = (tree.join("usr/sbin").join(name), format!("{name}-wlm"));
        if !link.exists() && tree.join("usr/sbin").join(&program).exists() {
            symlink(program, link)?;
        }
    }
    Ok(())
}

/// The name in the cache; the number changes with what a tree is made of.
fn label(suite: &str) -> String {
    format!("peers-3-{suite}")
}

fn made_of(suite: &str) -> PathBuf {
    // As `cached` names what root has made.
    crate::cache_dir().join(format!("{}.0", label(suite)))
}

fn want_room(dir: &Path) -> io::Result<()> {
    let room = rustix::fs::statvfs(dir)?;
    let free = room.f_bavail * room.f_frsize;
    if free >= ROOM_BYTES {
        return Ok(());
    }
    let [free, wanted] = [free, ROOM_BYTES].map(|bytes| bytes >> 20);
    Err(io::Error::other(format!("{} has {free} MiB free, and making it takes {wanted}", dir.display())))
}

/// The line of apt's words that says it.
fn brief(words: &str) -> String {
    let told = words.lines().find_map(|line| line.split_once("E: ").map(|(_, told)| told));
    told.or_else(|| words.lines().next()).unwrap_or_default().to_owned()
}
