//! `rm`: a container goes, with all that belongs to it.

use std::ffi::CString;

use bale_fault::{Context, Fault, Kind, Result};
use bale_record::{Dir, Phase, ProcessId, Record};
use bale_sys::error::Call;
use bale_sys::process;
use rustix::fs::AtFlags;

use crate::Engine;
use crate::container::{Container, Status, details, status};
use crate::spawn;
use crate::stop::{init_of, wait_end};

const SIGKILL: i32 = 9;

/// What goes with a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RemoveOptions {
    /// One that runs is killed first.
    pub force: bool,
    /// Its anonymous volumes go too.
    pub volumes: bool,
}

impl Engine {
    /// Removes a container.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when it runs and `force` is not given.
    pub fn remove(&self, name: &str, options: RemoveOptions) -> Result<()> {
        let dir = self.container_dir(name)?;
        self.remove_dir(dir, options).within(|| format!("remove container {name}"))
    }

    /// Removes the container in `dir`, in whatever state a killed command left it.
    pub(crate) fn remove_dir(&self, dir: Dir, options: RemoveOptions) -> Result<()> {
        let id = dir.id().to_owned();
        let dir = match Container::read(dir) {
            Ok(container) => self.end(container, options)?,
            // Made but never written, or damaged.
            Err(fault) if matches!(fault.kind(), Kind::NotFound | Kind::Corrupt) => {
                match Dir::open(&self.containers(), &id) {
                    Err(fault) if fault.kind() == Kind::NotFound => return Ok(()),
                    other => other?,
                }
            }
            Err(fault) => return Err(fault),
        };
        erase(self, &dir, options)
    }

    /// Makes sure that nothing of the container runs, or refuses.
    fn end(&self, container: Container, options: RemoveOptions) -> Result<Dir> {
        let running = container.status().is_running();
        if running && !options.force {
            let fault = Fault::new(Kind::Conflict, "it is running");
            return Err(fault.hint("stop it first, or remove it with --force"));
        }
        let own = container.record.supervisor.as_ref().is_some_and(|owner| {
            owner.pid == rustix::process::getpid().as_raw_nonzero().get() && owner.is_alive()
        });
        if own {
            // This process was making it; there is no supervisor yet.
            return Ok(container.dir);
        }
        if container.status() == Status::Created && container.record.phase == Phase::Creating {
            if !options.force {
                let words = "it is being started by another command";
                return Err(Fault::new(Kind::Conflict, words).hint("try again in a moment"));
            }
            // Whoever starts it may hang on a creator that was killed: it is ended, and what it made is cleared.
            end_process(container.record.supervisor.as_ref())?;
        }
        if let Some(init) = init_of(&container)? {
            // ESRCH: it has just ended by itself.
            let _ = process::send_signal(&init, SIGKILL);
            wait_end(&container, &init, None)?;
        }
        let (id, supervisor) = (container.dir.id().to_owned(), container.record.supervisor.clone());
        match self.settle(container) {
            Err(fault) if fault.kind() == Kind::Unavailable && options.force => {
                // A supervisor that does nothing any more has nothing to lose either.
                end_process(supervisor.as_ref())?;
                self.settle(Container::open(self, &id)?)
            }
            other => other,
        }
        .map(|container| container.dir)
    }
}

/// Ends a process if it is there.
fn end_process(process: Option<&ProcessId>) -> Result<()> {
    if let Some(pidfd) = process.map(ProcessId::open).transpose()?.flatten() {
        // ESRCH: it has just ended by itself.
        let _ = process::send_signal(&pidfd, SIGKILL);
        process::wait_end(&pidfd, None)?;
    }
    Ok(())
}

/// Removes name, volumes, files, record and directory, in an order that a second call can finish.
fn erase(engine: &Engine, dir: &Dir, options: RemoveOptions) -> Result<()> {
    if let Ok(record) = dir.load()
        && record.phase == Phase::Stopped
    {
        // Not under the lock, which whoever clears takes.
        remove_cgroups(dir, &record)?;
    }
    let locked = match dir.lock() {
        Err(fault) if fault.kind() == Kind::NotFound => return Ok(()),
        other => other?,
    };
    let record = match locked.load() {
        Ok(mut record) => {
            if status(&record).is_running() {
                return Err(Fault::new(Kind::Conflict, "it was started meanwhile"));
            }
            record.phase = Phase::Removing;
            locked.save(&record)?;
            Some(record)
        }
        // Made but never written, or damaged: there is nothing that it refers to.
        Err(fault) if matches!(fault.kind(), Kind::NotFound | Kind::Corrupt) => None,
        Err(fault) => return Err(fault),
    };
    match &record {
        Some(record) => drop_references(engine, dir, record, options)?,
        None => engine.release_names_of(dir)?,
    }
    remove_files(dir)?;
    locked.remove()
}

/// Removes cgroups that a supervisor could not: it writes that down, ends, and nobody else would come by.
fn remove_cgroups(dir: &Dir, record: &Record) -> Result<()> {
    let cgroups = record.cgroup.iter().flat_map(|cgroup| cgroup.v1.values().chain(&cgroup.unified));
    let gone = |path: &std::path::PathBuf| {
        matches!(rustix::fs::rmdir(path), Ok(()) | Err(rustix::io::Errno::NOENT | rustix::io::Errno::NODEV))
    };
    // All are tried.
    let left = cgroups.filter(|path| !gone(path)).count();
    if left == 0 { Ok(()) } else { spawn::clean(dir, None) }
}

fn drop_references(engine: &Engine, dir: &Dir, record: &Record, options: RemoveOptions) -> Result<()> {
    let details = details(record)?;
    engine.release_name(&details.name, dir)?;
    if options.volumes || details.auto_remove {
        engine.drop_anonymous_volumes(&details.volumes, &details.name)?;
    }
    Ok(())
}

/// Removes everything in the directory but record and lock, which go last.
fn remove_files(dir: &Dir) -> Result<()> {
    let listed = rustix::fs::openat(
        dir,
        c".",
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    );
    let listed = match listed {
        Err(rustix::io::Errno::NOENT) => return Ok(()),
        other => other.call(|| "openat(\".\", O_DIRECTORY)")?,
    };
    let mut names: Vec<CString> = Vec::new();
    for entry in rustix::fs::Dir::read_from(&listed).call(|| "getdents64()")? {
        let name = entry.call(|| "getdents64()")?.file_name().to_owned();
        let kept = [".", "..", bale_record::FILE, bale_record::LOCK];
        if !kept.iter().any(|kept| kept.as_bytes() == name.as_bytes()) {
            names.push(name);
        }
    }
    for name in names {
        match rustix::fs::unlinkat(dir, &name, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(_) => bale_store::remove_tree(dir, &name)?,
        }
    }
    Ok(())
}

impl Engine {
    /// Removes the container in `path` after its end, when it was to be removed then: the role `@remove`.
    ///
    /// # Errors
    /// As [`Engine::remove`].
    pub fn remove_ended(path: &std::path::Path) -> Result<()> {
        let root = path.parent().and_then(std::path::Path::parent);
        let root = root
            .ok_or_else(|| Fault::new(Kind::InvalidInput, format!("{path:?} is no container directory")))?;
        let engine = Self::open(root)?;
        let dir = Dir::open_path(path)?;
        erase(&engine, &dir, RemoveOptions { force: false, volumes: true })
    }
}
