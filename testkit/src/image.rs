//! Images made in the test: OCI layouts written with tar, gzip and sha256sum, none of them the project's own code.
//!
//! ```text
//! let layout = Layout::create(&scratch.join("layout"))?;
//! let base = layout.layer_of_tree(&rootfs)?;
//! let more = layout.layer_of_tar(&tar_bytes, Compression::Gzip)?;
//! let image = layout.image("web:1", json!({"Cmd": ["/web"], "User": "1000"}), &[base, more])?;
//! layout.archive(&scratch.join("web.tar"))?;       // for `bale load`; the folder itself is an OCI layout
//! ```

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use crate::debian::{self, Debian};
use crate::output_of;

/// Media type of a manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of an image config.
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Media type of an index.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// How a layer is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip.
    Gzip,
    /// Zstandard; needs the program `zstd`.
    Zstd,
}

impl Compression {
    fn media_type(self) -> &'static str {
        match self {
            Self::None => "application/vnd.oci.image.layer.v1.tar",
            Self::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }

    fn command(self) -> &'static str {
        match self {
            Self::None => "cat",
            Self::Gzip => "gzip -n -6",
            Self::Zstd => "zstd -q -3",
        }
    }
}

/// A layer that is in the layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Media type of the blob.
    pub media_type: String,
    /// Digest of the blob.
    pub digest: String,
    /// Size of the blob in bytes.
    pub size: u64,
    /// Digest of the tar.
    pub diff_id: String,
}

/// An image that is in the layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Digest of the manifest.
    pub digest: String,
    /// Size of the manifest in bytes.
    pub size: u64,
    /// Digest of the image config, which is docker's image id.
    pub config_digest: String,
}

/// A folder in the OCI image layout.
#[derive(Clone, Debug)]
pub struct Layout {
    dir: PathBuf,
}

impl Layout {
    /// Makes an empty layout in `dir`.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn create(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir.join("blobs/sha256"))?;
        fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
        let layout = Self { dir: dir.to_owned() };
        layout.write_index(&[])?;
        Ok(layout)
    }

    /// Returns the folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns the file of a blob.
    #[must_use]
    pub fn blob_path(&self, digest: &str) -> PathBuf {
        self.dir.join("blobs").join(digest.replace(':', "/"))
    }

    /// Packs a folder as a layer with GNU tar and gzip: owners by number, names in order.
    ///
    /// # Errors
    /// tar's words.
    pub fn layer_of_tree(&self, tree: &Path) -> io::Result<Layer> {
        let tar = self.temporary("tar");
        let mut command = Command::new("tar");
        command.args(["--numeric-owner", "--sort=name", "--xattrs", "--format=pax"]);
        command.args(["--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime", "-cf"]);
        command.arg(&tar).arg("-C").arg(tree).arg(".");
        output_of(&mut command)?;
        self.layer_of_file(&tar, Compression::Gzip)
    }

    /// Makes a layer of the bytes of a tar.
    ///
    /// # Errors
    /// When the layout cannot be written, or the packer is missing.
    pub fn layer_of_tar(&self, tar: &[u8], compression: Compression) -> io::Result<Layer> {
        let file = self.temporary("tar");
        fs::write(&file, tar)?;
        self.layer_of_file(&file, compression)
    }

    /// Makes a layer of bytes as they are, whatever they are.
    ///
    /// # Errors
    /// When the layout cannot be written.
    pub fn layer_of_blob(&self, blob: &[u8], media_type: &str, diff_id: &str) -> io::Result<Layer> {
        let (digest, size) = self.blob(blob)?;
        Ok(Layer { media_type: media_type.to_owned(), digest, size, diff_id: diff_id.to_owned() })
    }

    /// Puts `layers` (the lowest first) and a config together to an image, and names it in the index.
    ///
    /// `config` is the section `config` of the image config: `{"Cmd": ["sh"], "User": "1000"}`.
    ///
    /// # Errors
    /// When the layout cannot be written.
    #[allow(clippy::needless_pass_by_value, reason = "callers write json!({…})")]
    pub fn image(&self, name: &str, config: Value, layers: &[Layer]) -> io::Result<Image> {
        let history: Vec<Value> =
            layers.iter().map(|l| json!({"created_by": format!("layer {}", l.diff_id)})).collect();
        let document = json!({
            "created": "2026-01-01T00:00:00Z", "architecture": architecture(), "os": "linux", "config": config,
            "rootfs": {"type": "layers", "diff_ids": layers.iter().map(|l| &l.diff_id).collect::<Vec<_>>()},
            "history": history,
        });
        let (config_digest, config_size) = self.blob(document.to_string().as_bytes())?;
        let descriptor = |l: &Layer| json!({"mediaType": l.media_type, "digest": l.digest, "size": l.size});
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "digest": config_digest, "size": config_size},
            "layers": layers.iter().map(descriptor).collect::<Vec<_>>(),
        });
        let (digest, size) = self.blob(manifest.to_string().as_bytes())?;
        let image = Image { digest, size, config_digest };
        self.name(name, &image)?;
        Ok(image)
    }

    /// Adds a named image to the layout's index; `name` becomes `org.opencontainers.image.ref.name`.
    fn name(&self, name: &str, image: &Image) -> io::Result<()> {
        let index: Value = serde_json::from_slice(&fs::read(self.dir.join("index.json"))?)?;
        let mut manifests = index["manifests"].as_array().cloned().unwrap_or_default();
        manifests.push(json!({
            "mediaType": MANIFEST, "digest": image.digest, "size": image.size,
            "annotations": {"org.opencontainers.image.ref.name": name, "io.containerd.image.name": name},
        }));
        self.write_index(&manifests)
    }

    fn write_index(&self, manifests: &[Value]) -> io::Result<()> {
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
        fs::write(self.dir.join("index.json"), index.to_string())
    }

    /// Writes the layout as one tar, which `bale load`, `podman load` and `skopeo copy oci-archive:` read.
    ///
    /// # Errors
    /// tar's words.
    pub fn archive(&self, to: &Path) -> io::Result<()> {
        let mut command = Command::new("tar");
        command.arg("-cf").arg(to).arg("-C").arg(&self.dir).args(["oci-layout", "index.json", "blobs"]);
        output_of(&mut command).map(drop)
    }

    /// Puts bytes into the layout and returns their digest and size.
    ///
    /// # Errors
    /// When the layout cannot be written.
    pub fn blob(&self, bytes: &[u8]) -> io::Result<(String, u64)> {
        let file = self.temporary("blob");
        fs::write(&file, bytes)?;
        self.keep(&file)
    }

    fn layer_of_file(&self, tar: &Path, compression: Compression) -> io::Result<Layer> {
        let diff_id = sha256(tar)?;
        let packed = self.temporary("packed");
        let script = format!("{} <\"$1\" >\"$2\"", compression.command());
        output_of(Command::new("sh").args(["-c", &script, "sh"]).arg(tar).arg(&packed))?;
        fs::remove_file(tar)?;
        let (digest, size) = self.keep(&packed)?;
        Ok(Layer { media_type: compression.media_type().to_owned(), digest, size, diff_id })
    }

    /// Moves a file to the name that its content has.
    fn keep(&self, file: &Path) -> io::Result<(String, u64)> {
        let digest = sha256(file)?;
        let size = fs::metadata(file)?.len();
        fs::rename(file, self.blob_path(&digest))?;
        Ok((digest, size))
    }

    fn temporary(&self, label: &str) -> PathBuf {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        self.dir.join(format!(".{label}.{}.{number}", std::process::id()))
    }
}

/// Returns a file's digest as `sha256:…`, by coreutils: an opinion that is not the project's own.
///
/// # Errors
/// When the file cannot be read.
pub fn sha256(file: &Path) -> io::Result<String> {
    let output = output_of(Command::new("sha256sum").arg(file))?;
    let text = String::from_utf8_lossy(&output);
    // sha256sum marks a line whose file name it had to escape with a backslash.
    let hex = text.trim_start_matches('\\').get(..64).unwrap_or_default();
    Ok(format!("sha256:{hex}"))
}

/// Returns this machine's processor in Go's words.
#[must_use]
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Makes a root file system of busybox in `rootfs`: `/bin/busybox` with a link for each applet, and what programs
/// expect (`/etc/passwd` with root, daemon and the user 1000, `/tmp`, mount points).
///
/// # Errors
/// When the package cannot be fetched.
pub fn busybox_rootfs(rootfs: &Path) -> io::Result<()> {
    skeleton(rootfs)?;
    let busybox = rootfs.join("bin/busybox");
    match std::env::var_os(crate::BUSYBOX) {
        Some(here) => fs::copy(here, &busybox).map(drop)?,
        None => fetch_busybox(&busybox)?,
    }
    let applets = output_of(Command::new(&busybox).arg("--list"))?;
    for applet in String::from_utf8_lossy(&applets).lines().filter(|a| *a != "busybox") {
        std::os::unix::fs::symlink("busybox", rootfs.join("bin").join(applet))?;
    }
    Ok(())
}

fn fetch_busybox(busybox: &Path) -> io::Result<()> {
    let cache = crate::cache_dir();
    let packages = Debian::open(&cache.join("apt"))?.download(&["busybox-static"], &[])?;
    let package = packages.iter().find(|p| p.name == "busybox-static");
    let package = package.ok_or_else(|| io::Error::other("apt gave no busybox-static"))?;
    let unpacked = crate::Scratch::new("busybox");
    debian::unpack(package, unpacked.path())?;
    let source =
        ["usr/bin/busybox", "bin/busybox"].map(|name| unpacked.join(name)).into_iter().find(|p| p.is_file());
    fs::copy(source.ok_or_else(|| io::Error::other("no busybox in busybox-static"))?, busybox).map(drop)
}

/// Makes the folders and files that any root file system has.
fn skeleton(rootfs: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    for name in ["bin", "dev", "etc", "home", "proc", "root", "sys", "tmp", "var/tmp", "usr"] {
        fs::create_dir_all(rootfs.join(name))?;
    }
    for name in ["tmp", "var/tmp"] {
        fs::set_permissions(rootfs.join(name), fs::Permissions::from_mode(0o1777))?;
    }
    fs::set_permissions(rootfs.join("root"), fs::Permissions::from_mode(0o700))?;
    std::os::unix::fs::symlink("../bin", rootfs.join("usr/bin"))?;
    fs::write(rootfs.join("etc/passwd"), PASSWD)?;
    fs::write(rootfs.join("etc/group"), GROUP)
}

/// `/etc/passwd` of the images made here.
pub const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
    daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n\
    user:x:1000:1000:user:/home:/bin/sh\n\
    nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n";

/// `/etc/group` of the images made here; `user` is in `extra` too.
pub const GROUP: &str =
    "root:x:0:\ndaemon:x:1:\ntty:x:5:\nextra:x:900:user\nuser:x:1000:\nnogroup:x:65534:\n";

/// Returns an archive of the image `busybox:latest` (one layer, `Cmd` is `sh`), made once and kept in the cache.
///
/// # Panics
/// When it cannot be made: without network on the first run, for example.
#[must_use]
pub fn busybox() -> PathBuf {
    let make = |dir: &Path| {
        let tree = dir.join("rootfs");
        busybox_rootfs(&tree)?;
        let layout = Layout::create(&dir.join("layout"))?;
        let layer = layout.layer_of_tree(&tree)?;
        let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        layout.image("docker.io/library/busybox:latest", json!({"Cmd": ["sh"], "Env": [path]}), &[layer])?;
        layout.archive(&dir.join("image.tar"))
    };
    cached(&crate::cache_dir(), "busybox-1", make).expect("make the busybox image").join("image.tar")
}

/// Returns the folder `name` in `cache`, filled by `make` if it is not there yet; one process makes it, others wait.
///
/// # Errors
/// `make`'s.
pub fn cached(cache: &Path, name: &str, make: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<PathBuf> {
    fs::create_dir_all(cache)?;
    // As root and as a user the trees differ in their owners.
    let user = rustix::process::geteuid().as_raw();
    let ready = cache.join(format!("{name}.{user}"));
    let lock = File::create(cache.join(format!("{name}.{user}.lock")))?;
    lock.lock()?;
    if !ready.is_dir() {
        let draft = cache.join(format!("{name}.{user}.draft"));
        crate::scratch::remove_tree(&draft)?;
        fs::create_dir_all(&draft)?;
        make(&draft)?;
        fs::rename(&draft, &ready)?;
    }
    Ok(ready)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scratch;

    #[test]
    fn a_layout_names_what_it_holds() {
        let scratch = Scratch::new("layout");
        let tree = scratch.join("tree");
        fs::create_dir_all(tree.join("etc")).expect("mkdir");
        fs::write(tree.join("etc/motd"), "hello").expect("write");
        let layout = Layout::create(&scratch.join("layout")).expect("create");
        let layer = layout.layer_of_tree(&tree).expect("layer");
        assert_eq!(sha256(&layout.blob_path(&layer.digest)).expect("digest"), layer.digest);
        let image = layout.image("x:1", json!({"Cmd": ["sh"]}), std::slice::from_ref(&layer)).expect("image");
        let manifest: Value =
            serde_json::from_slice(&fs::read(layout.blob_path(&image.digest)).expect("read")).expect("json");
        assert_eq!(manifest["layers"][0]["digest"], layer.digest);
        layout.archive(&scratch.join("x.tar")).expect("archive");
        let listed = output_of(Command::new("tar").arg("-tf").arg(scratch.join("x.tar"))).expect("list");
        assert!(String::from_utf8_lossy(&listed).contains("index.json"));
    }
}
