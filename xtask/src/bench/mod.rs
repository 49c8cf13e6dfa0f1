//! `cargo xtask bench`: `bale` beside the other tools of the field, in one run, medians, a table.
//!
//! The tools ("peers") live in a tree of Debian packages of their own. The measuring happens inside that tree, in
//! private mount and pid namespaces and on a mount of cgroup2, by this same (static) program: see [`inside`].

mod disk;
mod fleet;
mod inside;
mod measure;
mod pull;
mod runtime;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use inside::Cgroups;

use bale_testkit::{image, output_of, scratch, service};

use crate::cargo::{self, Profile};
use crate::run::{Failure, Result, Runner, fail};
use crate::{apt, only, say};

/// What can be measured.
const ALL: &[&str] = &["runtime", "pull", "fleet"];

/// What the peers' tree is made of.
const PEERS: &str = "ca-certificates,runc,crun,containerd,docker-registry,podman,conmon,skopeo,umoci,redis-tools,\
    busybox-static,iproute2,procps,isal,xz-utils,zstd";

/// What `cargo xtask bench` does.
pub fn main(words: &[&str]) -> Result<()> {
    let (binary, words) = match words {
        ["--with", binary, rest @ ..] => (Some(Path::new(*binary).canonicalize()?), rest),
        _ => (None, words),
    };
    let (rounds, words) = match words {
        ["--rounds", rounds, rest @ ..] => (Some(*rounds), rest),
        _ => (None, words),
    };
    only(words, ALL)?;
    let wanted = if words.is_empty() { ALL } else { words };
    let tree = peers_tree()?;
    let dir = cargo::target().join("bench");
    let mut runner = Runner::new(&dir.join("output"))?;
    apt::ensure(&mut runner, apt::BUILD)?;
    let bale = match binary {
        Some(binary) => binary,
        None => cargo::build_bale(&mut runner, Profile::Release)?,
    };
    prepare(&dir, &bale, wanted)?;
    // Where containers are measured, they are on the host's own cgroups too.
    let parts = wanted.iter().flat_map(|name| match *name {
        "runtime" => &["runtime", "runtime-v1"][..],
        other => std::slice::from_ref(ALL.iter().find(|known| **known == other).unwrap_or(&"")),
    });
    for name in parts {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]);
        command.arg(std::env::current_exe()?).args(["@bench", name]).arg(&tree).arg(&dir);
        command.args(rounds);
        let (code, _) = runner.watch(&mut command)?;
        if code != 0 {
            return fail(format!("bench {name} ended with {code}"));
        }
    }
    Ok(())
}

/// The part of the bench that runs in the peers' tree.
pub fn main_inside(words: &[&str]) -> Result<()> {
    let [name, tree, dir, rest @ ..] = words else { return fail("@bench: NAME TREE FOLDER [ROUNDS]") };
    let rounds = rest.first().and_then(|rounds| rounds.parse().ok());
    let cgroups = if *name == "runtime-v1" { Cgroups::Host } else { Cgroups::Unified };
    inside::enter(Path::new(tree), Path::new(dir), cgroups)?;
    let outcome = match *name {
        "runtime" => runtime::main(rounds.unwrap_or(60)),
        "runtime-v1" => runtime::main_v1(rounds.unwrap_or(60)),
        "pull" => pull::main(rounds.unwrap_or(5)),
        "fleet" => fleet::main(rounds.unwrap_or(25)),
        other => fail(format!("no bench {other:?}")),
    };
    inside::remove_cgroups();
    outcome
}

/// Finds the peers' tree.
pub fn peers_tree() -> Result<PathBuf> {
    if !rustix::process::geteuid().is_root() {
        return fail("the bench needs root: it mounts, and makes containers with every tool");
    }
    let named = ["BALE_PEERS", "PEERS_ROOT"].iter().find_map(std::env::var_os);
    let tree = named.map_or_else(|| PathBuf::from("/opt/peers/sid"), PathBuf::from);
    if tree.join("usr/bin/crun").is_file() {
        return Ok(tree);
    }
    Err(Failure::Words(format!(
        "there is no tree with the peers in {0} (BALE_PEERS names another). To make one (two minutes, 1 GB):\n  \
         apt-get install -y mmdebstrap\n  \
         mmdebstrap --variant=minbase --include={PEERS} sid {0}",
        tree.display()
    )))
}

/// Puts all that the measuring needs into `dir`: the binaries, the images, an empty file system.
fn prepare(dir: &Path, bale: &Path, wanted: &[&str]) -> Result<()> {
    fs::create_dir_all(dir.join("bin"))?;
    fs::copy(bale, dir.join("bin/bale"))?;
    let sources = cargo::workspace().join("xtask/floor");
    for name in ["floor", "payload", "peak", "true"] {
        let mut compiler = Command::new("cc");
        compiler.args(["-static", "-O2", "-w", "-o"]).arg(dir.join("bin").join(name));
        if name == "true" {
            compiler.arg("-nostdlib");
        }
        output_of(compiler.arg(sources.join(format!("{name}.c"))))?;
    }
    if wanted.contains(&"pull") || wanted.contains(&"fleet") {
        say("making the images (once) …");
        payload_image(dir)?;
        let link = dir.join("pull.tar");
        let _ = fs::remove_file(&link);
        fs::hard_link(service::archive(&dir.join("cache"), &service::big_redis())?, link)?;
        empty_filesystem(&dir.join("empty.ext4"))?;
    }
    Ok(())
}

/// Makes an image of the payload alone.
fn payload_image(dir: &Path) -> Result<()> {
    let work = dir.join("payload-image");
    scratch::remove_tree(&work)?;
    payload_rootfs(&dir.join("bin/payload"), &work.join("rootfs"))?;
    let layout = image::Layout::create(&work.join("layout"))?;
    let layer = layout.layer_of_tree(&work.join("rootfs"))?;
    let config = serde_json::json!({"Cmd": ["/bin/stay"], "Env": ["PATH=/bin"]});
    layout.image("docker.io/bench/payload:1", config, &[layer])?;
    Ok(layout.archive(&dir.join("payload.tar"))?)
}

/// Makes a root file system of the payload.
fn payload_rootfs(payload: &Path, rootfs: &Path) -> Result<()> {
    for name in ["bin", "dev", "etc", "proc", "run", "sys", "tmp"] {
        fs::create_dir_all(rootfs.join(name))?;
    }
    for name in ["true", "stamp", "stay"] {
        fs::copy(payload, rootfs.join("bin").join(name))?;
    }
    fs::write(rootfs.join("etc/passwd"), image::PASSWD)?;
    fs::write(rootfs.join("etc/group"), image::GROUP)?;
    Ok(())
}

/// Makes an empty ext4 with a journal in a sparse file, the state that every pull begins with.
///
/// Why not remove and create files on the file system that is there: an ext4 without journal looks at every inode
/// that was deleted in the last minutes before it creates one, which multiplies the time of what is measured.
fn empty_filesystem(file: &Path) -> Result<()> {
    if file.exists() {
        return Ok(());
    }
    output_of(Command::new("truncate").args(["-s", "3G"]).arg(file))?;
    output_of(Command::new("mkfs.ext4").args(["-q", "-F", "-E", "lazy_itable_init=0"]).arg(file))?;
    Ok(())
}
