//! The demo's own `docker-registry` and `redis-cli`: unpacked in its folder, called through their own loader, so that
//! neither the host's libraries nor its list of packages matter.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use bale_testkit::debian::{self, Debian};
use bale_testkit::image::cached;

use super::stage::Stage;
use crate::run::{Failure, Result};

/// Where a program's dynamic loader may be, by processor.
const LOADERS: &[&str] = &["lib64/ld-linux-x86-64.so.2", "lib/ld-linux-aarch64.so.1"];

/// Downloads and unpacks the programs, and puts a starter of each into the stage's `bin`.
pub fn prepare(stage: &mut Stage) -> Result<()> {
    let cache = stage.cache();
    let tree = stage.timed("docker-registry and redis-cli, from their Debian packages", |_| {
        Ok(cached(&cache, "tools-1", |dir| unpack(&cache, dir))?)
    })?;
    for program in ["docker-registry", "redis-cli"] {
        write_starter(&tree, program, &stage.path("bin").join(program))?;
    }
    Ok(())
}

fn unpack(cache: &Path, dir: &Path) -> io::Result<()> {
    for (link, target) in [("bin", "usr/bin"), ("lib", "usr/lib"), ("lib64", "usr/lib64")] {
        fs::create_dir_all(dir.join(target))?;
        symlink(target, dir.join(link))?;
    }
    let packages = Debian::open(&cache.join("apt"))?.download(&["docker-registry", "redis-tools"], &[])?;
    packages.iter().try_for_each(|package| debian::unpack(package, dir))
}

fn write_starter(tree: &Path, program: &str, to: &Path) -> Result<()> {
    let loader = LOADERS.iter().map(|name| tree.join(name)).find(|path| path.exists());
    let loader = loader.ok_or_else(|| Failure::Words("no dynamic loader in the package libc6".to_owned()))?;
    let libraries = fs::read_dir(tree.join("usr/lib"))?.flatten().map(|entry| entry.path());
    let libraries = libraries.filter(|path| path.to_string_lossy().ends_with("-linux-gnu"));
    let libraries: Vec<String> = libraries.map(|path| path.display().to_string()).collect();
    let program = tree.join("usr/bin").join(program);
    let (loader, libraries, program) = (loader.display(), libraries.join(":"), program.display());
    fs::write(to, format!("#!/bin/sh\nexec '{loader}' --library-path '{libraries}' '{program}' \"$@\"\n"))?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o755))?;
    Ok(())
}
