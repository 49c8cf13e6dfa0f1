//! One member of an archive.

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A regular file; its content follows.
    File,
    /// A hard link to `link`.
    HardLink,
    /// A symbolic link to `link`.
    Symlink,
    /// A directory.
    Directory,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A FIFO.
    Fifo,
}

/// A time: seconds since 1970, and nanoseconds below 10⁹ to be added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    /// Seconds, negative before 1970.
    pub secs: i64,
    /// Nanoseconds, 0 to 999,999,999.
    pub nanos: u32,
}

/// A run of stored bytes in a sparse file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Where it stands in the file, in bytes.
    pub offset: u64,
    /// How long it is, in bytes.
    pub length: u64,
}

/// An extended attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Xattr {
    /// Its full name, such as `user.comment`; no NUL byte.
    pub name: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
}

/// One member of an archive. All bytes are as the archive has them: nothing here is safe to use as a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Name; may be absolute, may end in a slash.
    pub path: Vec<u8>,
    /// Type.
    pub kind: Kind,
    /// Target of a link, empty otherwise.
    pub link: Vec<u8>,
    /// Permission, suid, sgid and sticky bits (07777).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length of a file in bytes, its holes included; 0 for what is no file.
    pub size: u64,
    /// Modification time.
    pub mtime: Timestamp,
    /// Device numbers, major and minor; 0 for what is no device.
    pub device: (u32, u32),
    /// Extended attributes, in the archive's order, each name once.
    pub xattrs: Vec<Xattr>,
    /// The stored runs of a sparse file, ascending; `None` when all of it is stored.
    pub sparse: Option<Vec<Extent>>,
}

impl Entry {
    /// Makes an entry of mode 0644 (0755 for a directory), owned by root, of time 0.
    #[must_use]
    pub fn new(path: impl Into<Vec<u8>>, kind: Kind) -> Self {
        Self {
            path: path.into(),
            kind,
            link: Vec::new(),
            mode: if kind == Kind::Directory { 0o755 } else { 0o644 },
            uid: 0,
            gid: 0,
            size: 0,
            mtime: Timestamp::default(),
            device: (0, 0),
            xattrs: Vec::new(),
            sparse: None,
        }
    }
}
