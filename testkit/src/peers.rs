//! The other tools of the field, to make images with and to read ours: in a tree of their own, never installed.
//!
//! The tree is the one that `BALE_PEERS` (or `PEERS_ROOT`, or `/opt/peers/sid`) names, else it is made of Debian
//! packages in the tests' cache. Needs root: every call has private mount and pid namespaces with the tree as root.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::debian::Debian;
use crate::image::cached;
use crate::{Scratch, service};

/// What a tree must have to be taken as it is.
const PROGRAMS: &[&str] = &["skopeo", "umoci", "buildah", "podman", "dockerd", "docker-registry", "ctr"];

/// What a tree is made of, beyond the minimal system.
const PACKAGES: &[&str] = &[
    "buildah",
    "busybox-static",
    "ca-certificates",
    "conmon",
    "containerd",
    "crun",
    "docker.io",
    "docker-registry",
    "iptables",
    "libcap2-bin",
    "podman",
    "procps",
    "runc",
    "skopeo",
    "umoci",
    "zstd",
];

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
    /// Finds the tree that is named or at its usual place; `BALE_PEERS=make` makes one if there is none.
    ///
    /// # Panics
    /// With apt's words, when it was to be made.
    #[must_use]
    pub fn find() -> Option<Self> {
        let tree = named_tree();
        if PROGRAMS.iter().all(|name| find(&tree, name)) {
            return Some(Self { tree });
        }
        let wanted = std::env::var_os("BALE_PEERS").is_some_and(|value| value == "make");
        wanted.then(|| Self::open().expect("make the tree of the other tools"))
    }

    /// Finds the tree, or makes it.
    ///
    /// # Errors
    /// apt's words.
    pub fn open() -> io::Result<Self> {
        let tree = named_tree();
        if PROGRAMS.iter().all(|name| find(&tree, name)) {
            return Ok(Self { tree });
        }
        let cache = crate::cache_dir();
        let tree = cached(&cache, "peers-1", |dir| {
            let mut names = service::MINIMAL_SYSTEM.to_vec();
            names.extend(PACKAGES);
            service::base_tree(&Debian::open(&cache.join("apt"))?, &names, dir)?;
            fs::create_dir_all(dir.join("etc/containers"))?;
            fs::write(
                dir.join("etc/containers/policy.json"),
                r#"{"default":[{"type":"insecureAcceptAnything"}]}"#,
            )
        })?;
        Ok(Self { tree })
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

fn named_tree() -> PathBuf {
    let named = ["BALE_PEERS", "PEERS_ROOT"].iter().find_map(std::env::var_os).map(PathBuf::from);
    named.unwrap_or_else(|| PathBuf::from("/opt/peers/sid"))
}

fn find(tree: &Path, name: &str) -> bool {
    ["usr/bin", "usr/sbin"].iter().any(|dir| tree.join(dir).join(name).is_file())
}
