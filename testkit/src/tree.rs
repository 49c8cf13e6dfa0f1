//! A directory as a sorted list of entries with all their attributes: for comparing what two tools have made.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

/// One entry of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Path relative to the root of the tree, `.` for itself.
    pub path: PathBuf,
    /// `f` file, `d` directory, `l` link, `c` and `b` devices, `p` FIFO, `s` socket.
    pub kind: char,
    /// Permission, suid, sgid and sticky bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length in bytes of a file, 0 for all else.
    pub size: u64,
    /// Modification time, seconds.
    pub mtime: i64,
    /// Modification time, nanoseconds.
    pub mtime_nanos: i64,
    /// Hash of a file's content.
    pub content: u64,
    /// Target of a link.
    pub link: PathBuf,
    /// Device numbers.
    pub device: (u32, u32),
    /// The first path of this inode, when it has several within the tree.
    pub same_as: Option<PathBuf>,
    /// Extended attributes, sorted by name.
    pub xattrs: Vec<(String, Vec<u8>)>,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:04o} {}:{} {}", self.kind, self.mode, self.uid, self.gid, self.path.display())?;
        write!(f, " @{}.{:09}", self.mtime, self.mtime_nanos)?;
        match self.kind {
            'f' => write!(f, " {} bytes #{:016x}", self.size, self.content)?,
            'l' => write!(f, " -> {}", self.link.display())?,
            'c' | 'b' => write!(f, " {}:{}", self.device.0, self.device.1)?,
            _ => {}
        }
        if let Some(first) = &self.same_as {
            write!(f, " = {}", first.display())?;
        }
        for (name, value) in &self.xattrs {
            write!(f, " {name}=\"{}\"", value.escape_ascii())?;
        }
        Ok(())
    }
}

/// Lists the tree at `root`, sorted by path, not following links and not crossing into other file systems'
/// content.
///
/// # Errors
/// The failed call, with the path.
pub fn snapshot(root: impl AsRef<Path>) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    let mut coming = vec![PathBuf::from(".")];
    while let Some(path) = coming.pop() {
        let full = root.as_ref().join(&path);
        let (entry, inode) = read(&full, &path).map_err(|e| named(&full, &e))?;
        if entry.kind == 'd' {
            for child in fs::read_dir(&full).map_err(|e| named(&full, &e))? {
                coming.push(if path == Path::new(".") {
                    child?.file_name().into()
                } else {
                    path.join(child?.file_name())
                });
            }
        }
        entries.push((entry, inode));
    }
    entries.sort_by(|a, b| a.0.path.as_os_str().as_bytes().cmp(b.0.path.as_os_str().as_bytes()));
    let mut first: HashMap<(u64, u64), PathBuf> = HashMap::new();
    for (entry, inode) in &mut entries {
        if entry.kind != 'd' {
            entry.same_as = first.get(inode).cloned();
            first.entry(*inode).or_insert_with(|| entry.path.clone());
        }
    }
    Ok(entries.into_iter().map(|(entry, _)| entry).collect())
}

/// Tells the differences between two snapshots, one line each: `-` what only `left` has, `+` what only
/// `right` has.
#[must_use]
pub fn difference(left: &[Entry], right: &[Entry]) -> Vec<String> {
    let key = |e: &Entry| e.path.as_os_str().as_bytes().to_vec();
    let lines = |side: &[Entry], other: &[Entry], sign: char| -> Vec<(Vec<u8>, String)> {
        let other: HashMap<_, _> = other.iter().map(|e| (key(e), e)).collect();
        let differs = side.iter().filter(|e| other.get(&key(e)).is_none_or(|o| o != e));
        differs.map(|e| (key(e), format!("{sign} {e}"))).collect()
    };
    let mut all = [lines(left, right, '-'), lines(right, left, '+')].concat();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all.into_iter().map(|(_, line)| line).collect()
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn read(full: &Path, path: &Path) -> io::Result<(Entry, (u64, u64))> {
    let meta = fs::symlink_metadata(full)?;
    let kind = kind(&meta.file_type());
    let is_device = matches!(kind, 'c' | 'b');
    let device = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
    let entry = Entry {
        path: path.to_owned(),
        kind,
        mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
        size: if kind == 'f' { meta.size() } else { 0 },
        mtime: meta.mtime(),
        mtime_nanos: meta.mtime_nsec(),
        content: if kind == 'f' { hash(full)? } else { 0 },
        link: if kind == 'l' { fs::read_link(full)? } else { PathBuf::new() },
        device: if is_device { device } else { (0, 0) },
        same_as: None,
        xattrs: xattrs(full)?,
    };
    Ok((entry, (meta.dev(), meta.ino())))
}

fn kind(file_type: &fs::FileType) -> char {
    match () {
        () if file_type.is_file() => 'f',
        () if file_type.is_dir() => 'd',
        () if file_type.is_symlink() => 'l',
        () if file_type.is_char_device() => 'c',
        () if file_type.is_block_device() => 'b',
        () if file_type.is_fifo() => 'p',
        () => 's',
    }
}

fn hash(path: &Path) -> io::Result<u64> {
    // Always with the same keys, so that snapshots of different runs can be compared.
    let mut hasher = DefaultHasher::new();
    let mut file = fs::File::open(path)?;
    let mut buffer = vec![0; 1 << 16];
    loop {
        match io::Read::read(&mut file, &mut buffer)? {
            0 => return Ok(hasher.finish()),
            count => hasher.write(&buffer[..count]),
        }
    }
}

fn xattrs(path: &Path) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut list = vec![0; 1 << 16];
    let length = match rustix::fs::llistxattr(path, &mut list) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP) => 0,
        Err(errno) => return Err(errno.into()),
    };
    let mut all = Vec::new();
    for name in list[..length].split(|&b| b == 0).filter(|n| !n.is_empty()) {
        let mut value = vec![0; 1 << 16];
        let length = rustix::fs::lgetxattr(path, name, &mut value)?;
        value.truncate(length);
        all.push((String::from_utf8_lossy(name).into_owned(), value));
    }
    all.sort();
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_names_the_entry() {
        let scratch = crate::Scratch::new("tree");
        fs::write(scratch.join("a"), "x").unwrap();
        fs::hard_link(scratch.join("a"), scratch.join("b")).unwrap();
        std::os::unix::fs::symlink("a", scratch.join("c")).unwrap();
        let before = snapshot(scratch.path()).unwrap();
        let paths: Vec<_> = before.iter().map(|e| (e.path.display().to_string(), e.kind)).collect();
        assert_eq!(paths, [(".".into(), 'd'), ("a".into(), 'f'), ("b".into(), 'f'), ("c".into(), 'l')]);
        assert_eq!(before[2].same_as.as_deref(), Some(Path::new("a")));
        fs::remove_file(scratch.join("c")).unwrap();
        let after = snapshot(scratch.path()).unwrap();
        let lines = difference(&before, &after);
        assert!(lines.iter().any(|l| l.starts_with("- l 0777") && l.ends_with("-> a")), "{lines:?}");
    }
}
