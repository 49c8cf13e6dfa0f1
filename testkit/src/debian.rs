//! Debian packages, downloaded and unpacked in a folder, never installed.
//!
//! apt runs with a state of its own (`apt.conf` in the folder): it reads the host's package sources and keys, and
//! neither consults nor touches the host's list of installed packages. What counts as installed is said by the caller,
//! so that one layer's packages are exactly what the layers below lack.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use crate::output_of;

/// Packages that only maintainer scripts and system administrators need. Nothing is installed here, so no such script
/// ever runs.
const SCRIPTS_ONLY: &[&str] = &[
    "adduser",
    "debconf",
    "dpkg",
    "init-system-helpers",
    "install-info",
    "iproute2",
    "locales",
    "lsb-base",
    "mawk",
    "passwd",
    "perl",
    "perl-base",
    "postgresql-client-common",
    "postgresql-common",
    "ssl-cert",
    "sysvinit-utils",
    "systemd",
    "tar",
    "ucf",
    "usr-is-merged",
    "usrmerge",
];

/// Where Debian is when apt does not know of a mirror.
const MIRROR: &str = "http://deb.debian.org/debian/";

/// The keys of Debian's archive, of the host's system if it is Debian.
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Package lists older than this are fetched again.
const LISTS_AGE: Duration = Duration::from_secs(3 * 24 * 3600);

/// A package in the folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// Name.
    pub name: String,
    /// Version, with its epoch.
    pub version: String,
    /// `amd64`, `all`, ….
    pub architecture: String,
    /// The `.deb`.
    pub file: PathBuf,
}

/// A folder with apt's state and the downloaded packages.
#[derive(Debug)]
pub struct Debian {
    dir: PathBuf,
}

impl Debian {
    /// Prepares the folder `dir`.
    ///
    /// # Errors
    /// When there is no apt, or the folder cannot be written.
    pub fn open(dir: &Path) -> io::Result<Self> {
        if output_of(Command::new("apt-get").arg("--version")).is_err() {
            return Err(io::Error::other(
                "apt-get is not here: packages are taken from Debian (or Ubuntu) with it",
            ));
        }
        for name in ["lists/partial", "cache/archives/partial", "empty/partial"] {
            fs::create_dir_all(dir.join(name))?;
        }
        let dir = dir.canonicalize()?;
        fs::write(dir.join("apt.conf"), configuration(&dir))?;
        Ok(Self { dir })
    }

    /// Prepares the folder `dir` for packages of another suite than the host's (`trixie`, `testing`), from the mirror
    /// that the host uses.
    ///
    /// # Errors
    /// See [`Debian::open`].
    pub fn open_suite(dir: &Path, suite: &str) -> io::Result<Self> {
        let debian = Self::open(dir)?;
        let sources = debian.dir.join("sources.list");
        let keys = if Path::new(KEYS).exists() { format!("[signed-by={KEYS}] ") } else { String::new() };
        fs::write(&sources, format!("deb {keys}{} {suite} main\n", mirror()))?;
        let own = format!(
            "Dir::Etc::sourcelist \"{}\";\nDir::Etc::sourceparts \"/dev/null\";\n\
             Dir::Etc::preferences \"/dev/null\";\nDir::Etc::preferencesparts \"/dev/null\";\n\
             Acquire::Check-Valid-Until \"false\";\n",
            sources.display()
        );
        // A mirror that stands still for weeks has expired lists; they are signed all the same.
        fs::write(debian.dir.join("apt.conf"), configuration(&debian.dir) + &own)?;
        Ok(debian)
    }

    /// Tells whether the suite has a package.
    ///
    /// # Errors
    /// apt's words, when its lists cannot be fetched.
    pub fn knows(&self, name: &str) -> io::Result<bool> {
        let lock = File::create(self.dir.join("lock"))?;
        lock.lock()?;
        if self.lists_are_old() {
            self.update()?;
        }
        let mut show = Command::new("apt-cache");
        show.args(["show", name]).env("APT_CONFIG", self.dir.join("apt.conf"));
        Ok(output_of(&mut show).is_ok_and(|said| !said.is_empty()))
    }

    /// Removes what was downloaded.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn clean(&self) -> io::Result<()> {
        output_of(self.apt_get().arg("clean")).map(drop)
    }

    /// Downloads `names` and all that they need beyond `installed`; what is there already is kept.
    ///
    /// # Errors
    /// apt's words.
    pub fn download(&self, names: &[&str], installed: &[Package]) -> io::Result<Vec<Package>> {
        // Several test programs may ask at the same time; apt's own locks would make them fail instead of wait.
        let lock = File::create(self.dir.join("lock"))?;
        lock.lock()?;
        if self.lists_are_old() {
            self.update()?;
        }
        match self.download_now(names, installed) {
            // A list can name a package that the mirror has replaced since.
            Err(_) => self.update().and_then(|()| self.download_now(names, installed)),
            done => done,
        }
    }

    fn download_now(&self, names: &[&str], installed: &[Package]) -> io::Result<Vec<Package>> {
        fs::write(self.dir.join("status"), status_text(installed, names, &architecture()?))?;
        // apt leaves out the lines of packages that are in its cache: so this question is asked with an empty cache.
        let empty = format!("Dir::Cache::archives={}", self.dir.join("empty").display());
        let uris = output_of(self.apt_get().args(["-o", &empty, "install", "--print-uris"]).args(names))?;
        output_of(self.apt_get().args(["install", "--download-only"]).args(names))?;
        let archives = self.dir.join("cache/archives");
        Ok(String::from_utf8_lossy(&uris).lines().filter_map(|line| parse_uri(line, &archives)).collect())
    }

    fn update(&self) -> io::Result<()> {
        output_of(self.apt_get().arg("update"))?;
        fs::write(self.dir.join("updated"), "")
    }

    fn lists_are_old(&self) -> bool {
        let written = fs::metadata(self.dir.join("updated")).and_then(|m| m.modified());
        let age = written.map(|t| SystemTime::now().duration_since(t).unwrap_or_default());
        age.map_or(true, |age| age > LISTS_AGE)
    }

    fn apt_get(&self) -> Command {
        let mut command = Command::new("apt-get");
        command
            .arg("-qq")
            .env("APT_CONFIG", self.dir.join("apt.conf"))
            .env("DEBIAN_FRONTEND", "noninteractive");
        command.env("LC_ALL", "C.UTF-8");
        command
    }
}

/// Unpacks a package's files into the tree `into`; no script runs. With root, owners and modes are the package's.
///
/// # Errors
/// `dpkg-deb`'s or tar's words.
pub fn unpack(package: &Package, into: &Path) -> io::Result<()> {
    // tar itself, as dpkg-deb's own --extract replaces /bin, a link on every system of today, by a folder.
    let script = r#"dpkg-deb --fsys-tarfile "$1" | tar -C "$2" -xp --keep-directory-symlink"#;
    let mut shell = Command::new("sh");
    shell.args(["-c", script, "sh"]).arg(&package.file).arg(into);
    output_of(&mut shell).map(drop)
}

/// Returns the address of the host's Debian mirror, with a slash at the end.
fn mirror() -> String {
    let listed = output_of(Command::new("apt-get").args(["update", "--print-uris"])).unwrap_or_default();
    let listed = String::from_utf8_lossy(&listed);
    listed.lines().find_map(parse_mirror).unwrap_or_else(|| MIRROR.to_owned())
}

/// Parses a line of `apt-get update --print-uris`: `'http://deb.debian.org/debian/dists/bookworm/InRelease' …`.
fn parse_mirror(line: &str) -> Option<String> {
    let base = line.strip_prefix('\'')?.split_once("dists/")?.0;
    base.ends_with("/debian/").then(|| base.to_owned())
}

/// Returns the configuration with which apt touches nothing outside `dir`.
fn configuration(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        r#"Dir::State "{dir}";
Dir::State::lists "{dir}/lists";
Dir::State::status "{dir}/status";
Dir::Cache "{dir}/cache";
Dir::Log "{dir}";
APT::Sandbox::User "root";
APT::Install-Recommends "false";
APT::Get::Assume-Yes "true";
APT::Keep-Downloaded-Packages "true";
Acquire::Languages "none";
Acquire::Retries "3";
Debug::NoLocking "true";
DPkg::Post-Invoke "";
APT::Update::Post-Invoke "";
"#
    )
}

/// Returns Debian's name of this machine's processor.
fn architecture() -> io::Result<String> {
    let output = output_of(Command::new("dpkg").arg("--print-architecture"))?;
    Ok(String::from_utf8_lossy(&output).trim().to_owned())
}

/// Returns dpkg's status file for packages that are there, and for those that only maintainer scripts need.
///
/// The latter are left out when `wanted` names them, or they would count as there already.
fn status_text(installed: &[Package], wanted: &[&str], architecture: &str) -> String {
    // `allowed` answers a wish for `perl:any`.
    let entry = |name: &str, version: &str, architecture: &str, multi: &str| {
        format!(
            "Package: {name}\nStatus: install ok installed\nMaintainer: nobody\nArchitecture: {architecture}\n\
             Multi-Arch: {multi}\nVersion: {version}\nDescription: is there\n\n"
        )
    };
    let there = installed.iter().map(|p| entry(&p.name, &p.version, &p.architecture, "foreign"));
    let claimed = SCRIPTS_ONLY.iter().filter(|name| !wanted.contains(name));
    // An epoch above every other, so that each wish for a minimal version is met.
    let claimed = claimed.map(|name| entry(name, "99:0", architecture, "allowed"));
    there.chain(claimed).collect()
}

/// Parses a line of `apt-get --print-uris`: `'URL' name_version_arch.deb size hash`.
fn parse_uri(line: &str, archives: &Path) -> Option<Package> {
    let file = line.strip_prefix('\'')?.split_once("' ")?.1.split(' ').next()?;
    let mut parts = file.strip_suffix(".deb")?.splitn(3, '_');
    let (name, version, architecture) = (parts.next()?, parts.next()?, parts.next()?);
    Some(Package {
        name: name.to_owned(),
        version: version.replace("%3a", ":"),
        architecture: architecture.to_owned(),
        file: archives.join(file),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_print_uris_is_read() {
        let line = "'http://deb.debian.org/x/redis-tools_7.0.15-1_amd64.deb' redis-tools_5%3a7.0.15-1_amd64.deb 9 MD5Sum:0";
        let package = parse_uri(line, Path::new("/a")).expect("a package");
        assert_eq!((package.name.as_str(), package.version.as_str()), ("redis-tools", "5:7.0.15-1"));
        assert_eq!(package.file, Path::new("/a/redis-tools_5%3a7.0.15-1_amd64.deb"));
        assert_eq!(parse_uri("Reading package lists...", Path::new("/a")), None);
    }

    #[test]
    fn the_mirror_is_the_one_of_the_main_archive() {
        let cases = [
            (
                "'http://m.example/debian/dists/bookworm/InRelease' m.example_debian 0 ",
                Some("http://m.example/debian/"),
            ),
            ("'http://m.example/debian-security/dists/bookworm-security/InRelease' m 0 ", None),
            ("Reading package lists...", None),
        ];
        for (line, wanted) in cases {
            assert_eq!(parse_mirror(line).as_deref(), wanted, "{line}");
        }
    }
}
