//! Names of containers: `<root>/names/<name>` is a symbolic link whose text is the id.
//!
//! The link is made and removed under the `names` lock. A link counts only while the container exists and its record
//! says the same name, so what a killed command left is taken over by the next one.

use std::path::PathBuf;

use bale_fault::{Context, Fault, Kind, Result};
use bale_record::Dir;
use bale_sys::error::Call;
use bale_sys::file::{Lock, LockMode};
use bale_sys::root::RootFd;
use rustix::fs::AtFlags;
use rustix::io::Errno;

use crate::Engine;
use crate::container::{Container, Status};

/// The longest name.
const LIMIT: usize = 200;

/// Checks a name against docker's rule `[a-zA-Z0-9][a-zA-Z0-9_.-]+`.
///
/// # Errors
/// `InvalidInput`.
pub fn check(name: &str) -> Result<()> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    let first = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if first && name.len() >= 2 && name.len() <= LIMIT && name.chars().all(allowed) {
        return Ok(());
    }
    let words =
        format!("invalid container name {name:?}: want a letter or digit, then letters, digits and _ . -");
    Err(Fault::new(Kind::InvalidInput, words).hint(format!("a name has 2 to {LIMIT} characters")))
}

const ADJECTIVES: &[&str] = &[
    "able", "airy", "amber", "ample", "apt", "astute", "avid", "balmy", "bold", "brave", "breezy", "bright",
    "brisk", "calm", "candid", "cheery", "civil", "clear", "clever", "cosmic", "cosy", "crisp", "curious",
    "dapper", "daring", "deft", "dreamy", "eager", "earnest", "easy", "fabled", "fair", "fleet", "fond",
    "frank", "fresh", "gentle", "glad", "golden", "grand", "handy", "hardy", "hearty", "honest", "humble",
    "jolly", "jovial", "keen", "kind", "lively", "lofty", "loyal", "lucid", "lucky", "mellow", "merry",
    "mild", "modest", "neat", "nimble", "noble", "patient", "placid", "plucky", "polite", "prompt", "proud",
    "quick", "quiet", "radiant", "rapid", "ready", "robust", "rosy", "sage", "serene", "sharp", "shiny",
    "silent", "simple", "sincere", "sleek", "smooth", "snug", "solid", "spry", "stable", "steady", "still",
    "stout", "sturdy", "subtle", "sunny", "supple", "sure", "swift", "tactful", "tidy", "tranquil", "trim",
    "trusty", "upbeat", "valiant", "vivid", "warm", "wise", "witty", "zesty",
];
const SURNAMES: &[&str] = &[
    "abel",
    "agnesi",
    "alembert",
    "apgar",
    "bacon",
    "banks",
    "barton",
    "bernoulli",
    "bessel",
    "bose",
    "boole",
    "boyle",
    "brahe",
    "cantor",
    "carnot",
    "cassini",
    "cauchy",
    "chandra",
    "clairaut",
    "conway",
    "coulomb",
    "curie",
    "dalton",
    "descartes",
    "dijkstra",
    "dirac",
    "doppler",
    "eckert",
    "edison",
    "einstein",
    "erdos",
    "euclid",
    "euler",
    "faraday",
    "fermat",
    "fermi",
    "feynman",
    "fourier",
    "franklin",
    "fresnel",
    "galileo",
    "galois",
    "gauss",
    "germain",
    "godel",
    "goodall",
    "hamilton",
    "hawking",
    "herschel",
    "hertz",
    "hilbert",
    "hooke",
    "hopper",
    "hubble",
    "huygens",
    "hypatia",
    "jacobi",
    "joule",
    "kelvin",
    "kepler",
    "klein",
    "kovalevskaya",
    "lagrange",
    "lamarr",
    "laplace",
    "leavitt",
    "leibniz",
    "lie",
    "linnaeus",
    "lovelace",
    "lorentz",
    "maxwell",
    "meitner",
    "mendel",
    "minkowski",
    "mirzakhani",
    "moebius",
    "napier",
    "nash",
    "newton",
    "noether",
    "ohm",
    "oersted",
    "pascal",
    "pasteur",
    "pauli",
    "peano",
    "planck",
    "poincare",
    "poisson",
    "ramanujan",
    "riemann",
    "ritchie",
    "roentgen",
    "rutherford",
    "salk",
    "schrodinger",
    "shannon",
    "sobolev",
    "somerville",
    "stokes",
    "tesla",
    "thales",
    "turing",
    "venn",
    "volta",
    "wallace",
    "watt",
    "weyl",
    "wiener",
    "wiles",
    "wu",
    "yalow",
    "young",
    "zermelo",
    "zuse",
];

/// Makes a name up: `keen_hopper`, and with `salt` above 0 `keen_hopper3`.
fn invent(bytes: [u8; 4], salt: u32) -> String {
    let [a, b, c, d] = bytes;
    let adjective = ADJECTIVES[usize::from(u16::from_le_bytes([a, b])) % ADJECTIVES.len()];
    let surname = SURNAMES[usize::from(u16::from_le_bytes([c, d])) % SURNAMES.len()];
    if salt == 0 { format!("{adjective}_{surname}") } else { format!("{adjective}_{surname}{salt}") }
}

impl Engine {
    fn names(&self) -> PathBuf {
        self.root().join("names")
    }

    /// Opens the directory of names with its lock held.
    fn lock_names(&self) -> Result<(RootFd, Lock)> {
        use std::os::unix::fs::DirBuilderExt;
        let path = self.names();
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&path);
        made.within(|| format!("make {path:?}"))?;
        let names = RootFd::open(&path)?;
        let lock = Lock::take(&names, ".lock", LockMode::Exclusive)?;
        Ok((names, lock))
    }

    /// Reads which id a name stands for.
    pub(crate) fn id_of_name(&self, name: &str) -> Option<String> {
        check(name).ok()?;
        std::fs::read_link(self.names().join(name)).ok()?.into_os_string().into_string().ok()
    }

    /// Makes `name` stand for `id`, whose record must say the same name already.
    ///
    /// # Errors
    /// `AlreadyExists` when another container has it.
    pub(crate) fn claim_name(&self, name: &str, id: &str) -> Result<()> {
        check(name)?;
        let (names, _lock) = self.lock_names()?;
        match rustix::fs::symlinkat(id, &names, name) {
            Err(Errno::EXIST) => {}
            other => return Ok(other.call(|| format!("symlinkat({id:?}, {name:?})"))?),
        }
        if let Some(owner) = self.owner_of(name) {
            let words = format!("the name {name:?} is in use by container {}", &owner[..owner.len().min(12)]);
            let hint = format!("remove it (`bale rm {name}`) or choose another name");
            return Err(Fault::new(Kind::AlreadyExists, words).hint(hint));
        }
        rustix::fs::unlinkat(&names, name, AtFlags::empty()).call(|| format!("unlinkat({name:?})"))?;
        Ok(rustix::fs::symlinkat(id, &names, name).call(|| format!("symlinkat({id:?}, {name:?})"))?)
    }

    /// Invents a free name for `id` and claims it; `write` puts it into the record first.
    ///
    /// # Errors
    /// What `write` or the claim said.
    pub(crate) fn claim_invented(
        &self,
        id: &str,
        mut write: impl FnMut(&str) -> Result<()>,
    ) -> Result<String> {
        // The id is random already.
        let byte = |at: usize| u8::from_str_radix(id.get(at..at + 2).unwrap_or("0"), 16).unwrap_or(0);
        let mut salt = 0;
        loop {
            let name = invent([byte(56), byte(58), byte(60), byte(62)], salt);
            if self.id_of_name(&name).is_none() {
                write(&name)?;
                match self.claim_name(&name, id) {
                    Err(fault) if fault.kind() == Kind::AlreadyExists => {}
                    other => return other.map(|()| name),
                }
            }
            salt += 1;
        }
    }

    /// Returns the container that a name's link leads to, if it is one that has the name by its record. What a
    /// broken-off command left does not count.
    fn owner_of(&self, name: &str) -> Option<String> {
        let id = self.id_of_name(name)?;
        let container = Container::open(self, &id).ok()?;
        (container.details.name == name && container.status() != Status::Dead).then_some(id)
    }

    /// Takes the name away from `id`; nothing happens when it stands for another container.
    ///
    /// # Errors
    /// The failed call.
    pub(crate) fn release_name(&self, name: &str, dir: &Dir) -> Result<()> {
        if check(name).is_err() || self.id_of_name(name).as_deref() != Some(dir.id()) {
            return Ok(());
        }
        let (names, _lock) = self.lock_names()?;
        if self.id_of_name(name).as_deref() != Some(dir.id()) {
            return Ok(());
        }
        match rustix::fs::unlinkat(&names, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(bale_sys::Error::new(format!("unlinkat({name:?})"), errno).into()),
        }
    }

    /// Takes all names from a container whose record can no longer say which one it has.
    ///
    /// # Errors
    /// The failed call.
    pub(crate) fn release_names_of(&self, dir: &Dir) -> Result<()> {
        let Ok(entries) = std::fs::read_dir(self.names()) else { return Ok(()) };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names.into_iter().try_for_each(|name| self.release_name(&name, dir))
    }

    /// Finds what stands in the way of `name`: a container whose making was broken off.
    pub(crate) fn broken_owner_of(&self, name: &str) -> Option<Dir> {
        let id = self.id_of_name(name)?;
        let container = Container::open(self, &id).ok()?;
        (container.status() == Status::Dead).then_some(container.dir)
    }
}

#[cfg(test)]
mod tests {
    use bale_record::{Phase, Record};

    use super::*;
    use crate::container::Details;

    fn container(engine: &Engine, id: &str, name: &str) -> Dir {
        let dir = Dir::reserve(&engine.containers(), id).unwrap();
        let mut record = Record::new(id, Phase::Configured, "/b", String::new());
        record.engine = Details { name: name.to_owned(), ..Details::default() }.to_value().unwrap();
        dir.lock().unwrap().save(&record).unwrap();
        dir
    }

    #[test]
    fn a_name_has_one_owner() {
        let root = tempfile::tempdir().unwrap();
        let engine = Engine::open(root.path()).unwrap();
        let (a, b) = ("a".repeat(64), "b".repeat(64));
        let first = container(&engine, &a, "web");
        container(&engine, &b, "web");
        engine.claim_name("web", &a).unwrap();
        assert_eq!(engine.claim_name("web", &b).unwrap_err().kind(), Kind::AlreadyExists);
        assert_eq!(engine.container("web").unwrap().id(), a);
        assert_eq!(engine.container("bb").unwrap().id(), b);
        engine.release_name("web", &first).unwrap();
        engine.claim_name("web", &b).unwrap();
        assert_eq!(engine.container("web").unwrap().id(), b);
        assert_eq!(engine.container("wob").unwrap_err().kind(), Kind::NotFound);
    }

    #[test]
    fn what_a_killed_command_left_is_taken_over() {
        let root = tempfile::tempdir().unwrap();
        let engine = Engine::open(root.path()).unwrap();
        engine.claim_name("web", &"c".repeat(64)).unwrap();
        let a = "a".repeat(64);
        container(&engine, &a, "web");
        engine.claim_name("web", &a).unwrap();
        assert_eq!(engine.container("web").unwrap().id(), a);
    }

    #[test]
    fn names_are_checked_and_invented() {
        for bad in ["", "a", "-a", "a b", "a/b", &"x".repeat(201), ".."] {
            assert!(check(bad).is_err(), "{bad}");
        }
        assert!(check(&invent([1, 2, 3, 4], 0)).is_ok() && check(&invent([9, 9, 9, 9], 7)).is_ok());
        for word in ADJECTIVES.iter().chain(SURNAMES) {
            assert!(word.bytes().all(|b| b.is_ascii_lowercase()), "{word}");
        }
    }
}
