//! The files of a cgroup as the host sees them.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A cgroup below the unified hierarchy.
pub struct Group(PathBuf);

impl Group {
    /// The cgroup of the container `id` of a stage.
    pub fn of(id: &str) -> Self {
        Self::at(&format!("bale-tests/{id}"))
    }

    /// The cgroup at `path` below the mount.
    pub fn at(path: &str) -> Self {
        Self(Path::new("/sys/fs/cgroup").join(path.trim_start_matches('/')))
    }

    pub fn exists(&self) -> bool {
        self.0.is_dir()
    }

    /// Reads a file, without the last line end.
    pub fn read(&self, file: &str) -> String {
        let path = self.0.join(file);
        let text = std::fs::read_to_string(&path);
        text.unwrap_or_else(|error| panic!("{}: {error}", path.display())).trim_end().to_owned()
    }

    /// Reads the number after `key` in a file of keys and numbers.
    pub fn count(&self, file: &str, key: &str) -> u64 {
        let text = self.read(file);
        let number = text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse().ok());
        number.unwrap_or_else(|| panic!("no {key} in {file}: {text}"))
    }

    /// Waits until the number after `key` in a file is above zero.
    pub fn wait_count(&self, file: &str, key: &str) {
        let limit = Instant::now() + Duration::from_secs(60);
        while self.count(file, key) == 0 {
            assert!(Instant::now() < limit, "{key} in {file} stays 0");
            std::thread::yield_now();
        }
    }
}
