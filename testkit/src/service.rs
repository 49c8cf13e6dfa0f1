//! Images of real services, made of Debian packages: a base layer and a layer of the service.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::debian::{self, Debian, Package};
use crate::image::{Layout, cached};

/// What the base layer is made of: a shell, the usual small programs and the C library.
const BASE: &[&str] = &["base-files", "bash", "coreutils", "dash", "grep", "libc-bin", "sed"];

/// Debian's minimal system: packages marked as essential, and apt.
pub const MINIMAL_SYSTEM: &[&str] = &[
    "apt",
    "base-files",
    "base-passwd",
    "bash",
    "bsdutils",
    "coreutils",
    "dash",
    "debian-archive-keyring",
    "debianutils",
    "diffutils",
    "dpkg",
    "findutils",
    "gpgv",
    "grep",
    "gzip",
    "hostname",
    "init-system-helpers",
    "libc-bin",
    "login",
    "mawk",
    "mount",
    "ncurses-base",
    "ncurses-bin",
    "passwd",
    "perl-base",
    "sed",
    "sysvinit-utils",
    "tar",
    "tzdata",
    "util-linux",
    "gcc-12-base",
    "libc6-dev",
];

/// Links of a merged /usr (UsrMerge, Debian 12): in the base layer, and there only.
const MERGED: &[(&str, &str)] =
    &[("bin", "usr/bin"), ("sbin", "usr/sbin"), ("lib", "usr/lib"), ("lib64", "usr/lib64")];

/// Left out of the layers: nobody reads them in a container.
const UNREAD: &[&str] = &["usr/share/man", "usr/share/info", "usr/share/locale", "usr/share/lintian"];

/// How an image of a service is made.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The image's name, as `load` will know it.
    pub name: &'static str,
    /// Debian packages of the base layer.
    pub base: &'static [&'static str],
    /// Debian packages beyond the base's.
    pub packages: &'static [&'static str],
    /// A user of the service: name, uid (and gid), home.
    pub user: (&'static str, u32, &'static str),
    /// Folders that belong to the user.
    pub folders: &'static [&'static str],
    /// Files beyond the packages': path, mode, content.
    pub files: &'static [(&'static str, u32, &'static str)],
    /// Section `config` of the image config.
    pub config: Value,
}

/// Redis, to be run as the user 1000 with its data in the volume `/data`.
#[must_use]
pub fn redis() -> Recipe {
    Recipe {
        name: "docker.io/demo/redis:7",
        base: BASE,
        packages: &["redis-server", "redis-tools"],
        user: ("redis", 1000, "/data"),
        folders: &["data"],
        files: &[],
        config: json!({
            "Entrypoint": ["redis-server"], "Cmd": ["--bind", "127.0.0.1"], "User": "1000", "WorkingDir": "/data",
            "Env": [PATH, "LANG=C.UTF-8"], "Volumes": {"/data": {}}, "ExposedPorts": {"6379/tcp": {}},
            "StopSignal": "SIGTERM", "Labels": {"org.opencontainers.image.title": "redis"},
        }),
    }
}

/// Redis on a base layer of the size that images in the field have: Debian's whole minimal system, 45 MB of gzip.
#[must_use]
pub fn big_redis() -> Recipe {
    Recipe { name: "docker.io/bench/redis:1", base: MINIMAL_SYSTEM, ..redis() }
}

/// nginx on port 8080 as the user 33, all logs on standard error.
#[must_use]
pub fn nginx() -> Recipe {
    Recipe {
        name: "docker.io/demo/nginx:1",
        base: BASE,
        packages: &["nginx"],
        user: ("www-data", 33, "/var/www"),
        folders: &["var/lib/nginx", "var/www", "run/nginx"],
        files: &[("etc/nginx/service.conf", 0o644, NGINX_CONF), ("var/www/index.html", 0o644, "it works\n")],
        config: json!({
            "Cmd": ["nginx", "-c", "/etc/nginx/service.conf"], "User": "www-data", "Env": [PATH],
            "ExposedPorts": {"8080/tcp": {}}, "StopSignal": "SIGQUIT",
        }),
    }
}

/// PostgreSQL as the user 999, with its data in a volume that the first start fills.
#[must_use]
pub fn postgres() -> Recipe {
    Recipe {
        name: "docker.io/demo/postgres:15",
        base: BASE,
        packages: &["postgresql-15", "postgresql-client-15"],
        user: ("postgres", 999, "/var/lib/postgresql"),
        folders: &["var/lib/postgresql", "var/lib/postgresql/data", "var/run/postgresql"],
        files: &[("usr/local/bin/postgres-entrypoint", 0o755, POSTGRES_ENTRYPOINT)],
        config: json!({
            "Entrypoint": ["postgres-entrypoint"], "Cmd": ["postgres"], "User": "postgres",
            "Env": [PATH_POSTGRES, "PGDATA=/var/lib/postgresql/data", "LANG=C.UTF-8"],
            "Volumes": {"/var/lib/postgresql/data": {}}, "ExposedPorts": {"5432/tcp": {}}, "StopSignal": "SIGINT",
        }),
    }
}

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const PATH_POSTGRES: &str =
    "PATH=/usr/lib/postgresql/15/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

const NGINX_CONF: &str = "daemon off;\nmaster_process on;\nworker_processes 1;\npid /run/nginx/nginx.pid;\n\
    error_log stderr notice;\nevents { worker_connections 64; }\n\
    http {\n  access_log /dev/stdout;\n  include /etc/nginx/mime.types;\n\
    \x20 server { listen 127.0.0.1:8080; root /var/www; }\n}\n";

const POSTGRES_ENTRYPOINT: &str = "#!/bin/sh\nset -e\n\
    if [ ! -s \"$PGDATA/PG_VERSION\" ]; then initdb --no-locale --encoding=UTF8 --auth=trust >&2; fi\nexec \"$@\"\n";

/// Makes the image of `recipe` in `cache` (once) and returns its archive, an OCI layout in a tar.
///
/// # Errors
/// apt's and tar's words, and those of the file system. Owners are right only when called by root.
pub fn archive(cache: &Path, recipe: &Recipe) -> io::Result<PathBuf> {
    let label = format!("image-1-{}", recipe.name.replace(['/', ':'], "_"));
    let dir = cached(cache, &label, |dir| make(cache, recipe, dir))?;
    Ok(dir.join("image.tar"))
}

fn make(cache: &Path, recipe: &Recipe, dir: &Path) -> io::Result<()> {
    let debian = Debian::open(&cache.join("apt"))?;
    let layout = Layout::create(&dir.join("layout"))?;
    let below = base_tree(&debian, recipe.base, &dir.join("base"))?;
    let base = layout.layer_of_tree(&dir.join("base"))?;
    service_tree(&debian, recipe, &below, &dir.join("service"))?;
    let service = layout.layer_of_tree(&dir.join("service"))?;
    layout.image(recipe.name, recipe.config.clone(), &[base, service])?;
    layout.archive(&dir.join("image.tar"))?;
    // What counts is in the archive now.
    [dir.join("base"), dir.join("service")].iter().try_for_each(|tree| crate::scratch::remove_tree(tree))
}

/// Unpacks packages with all that they need into `tree`, and makes what their scripts would make.
///
/// # Errors
/// apt's and tar's words.
pub fn base_tree(debian: &Debian, names: &[&str], tree: &Path) -> io::Result<Vec<Package>> {
    let packages = debian.download(names, &[])?;
    unpack_all(&packages, tree)?;
    for name in ["dev", "proc", "sys", "run", "tmp", "root", "etc"] {
        fs::create_dir_all(tree.join(name))?;
    }
    fs::set_permissions(tree.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    fs::write(tree.join("etc/passwd"), PASSWD)?;
    fs::write(tree.join("etc/group"), GROUP)?;
    if !tree.join("usr/bin/sh").exists() {
        symlink("dash", tree.join("usr/bin/sh"))?;
    }
    Ok(packages)
}

/// Unpacks the packages that the base lacks and adds the recipe's user, folders and files.
fn service_tree(debian: &Debian, recipe: &Recipe, below: &[Package], tree: &Path) -> io::Result<()> {
    unpack_all(&debian.download(recipe.packages, below)?, tree)?;
    let (name, id, home) = recipe.user;
    fs::create_dir_all(tree.join("etc"))?;
    fs::write(tree.join("etc/passwd"), format!("{PASSWD}{name}:x:{id}:{id}::{home}:/bin/sh\n"))?;
    fs::write(tree.join("etc/group"), format!("{GROUP}{name}:x:{id}:\n"))?;
    for (path, mode, content) in recipe.files {
        let path = tree.join(path);
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::write(&path, content)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(*mode))?;
    }
    for folder in recipe.folders {
        let folder = tree.join(folder);
        fs::create_dir_all(&folder)?;
        if rustix::process::geteuid().is_root() {
            chown(&folder, Some(id), Some(id))?;
        }
    }
    // The base layer has these links; a layer holds only what it changes.
    MERGED.iter().try_for_each(|(link, _)| fs::remove_file(tree.join(link)))
}

fn unpack_all(packages: &[Package], tree: &Path) -> io::Result<()> {
    for (link, target) in MERGED {
        fs::create_dir_all(tree.join(target))?;
        symlink(target, tree.join(link))?;
    }
    packages.iter().try_for_each(|package| debian::unpack(package, tree))?;
    for name in UNREAD {
        crate::scratch::remove_tree(&tree.join(name))?;
    }
    Ok(())
}

const PASSWD: &str =
    "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n";
const GROUP: &str = "root:x:0:\ntty:x:5:\nadm:x:4:\nnogroup:x:65534:\n";
