//! `create`: an image or a bundle and what the user asks for become a container that can be started.
//!
//! Intent before effect: the record comes first, in phase `creating` and owned by this process. Whoever finds it with
//! a dead owner knows that the making was broken off ([`crate::Status::Dead`]), and a command that wants the same name
//! clears it away.

use std::path::{Path, PathBuf};

use bale_fault::{Context, Fault, Kind, Result};
use bale_record::{Dir, Phase, ProcessId, Record, time};
use bale_spec::Reference;
use bale_spec::generate::{self, EtcFiles, Generated};
use bale_spec::image::ImageConfig;
use bale_spec::options::{Network, RunOptions};
use bale_spec::runtime::{ConsoleSize, RuntimeConfig};
use bale_sys::error::Call;
use bale_sys::file::{self, Durability};
use bale_sys::root::RootFd;
use rustix::fs::Mode;

use crate::container::{Container, Details, new_id};
use crate::host;
use crate::{Engine, Image, Policy, Progress, PullOptions, bundle, names, rootfs};

/// Docker's time between the stop signal and SIGKILL.
const STOP_TIMEOUT_SECONDS: i64 = 10;

/// What a container is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// An image, by name or id.
    Image(String),
    /// The directory of a bundle, whose root file system is used in place.
    Bundle(PathBuf),
}

impl Source {
    /// Reads the word after the flags: a bundle is spelled like a path (`./redis`, `/containers/redis`, `..`).
    #[must_use]
    pub fn parse(word: &str) -> Self {
        let path = word.starts_with(['/', '.']) || word.ends_with('/');
        if path { Self::Bundle(PathBuf::from(word)) } else { Self::Image(word.to_owned()) }
    }
}

/// How a container is made.
#[derive(Clone, Debug)]
pub struct CreateOptions {
    /// Of what.
    pub source: Source,
    /// What the user asked for.
    pub run: RunOptions,
    /// When the registry is asked for the image.
    pub pull: PullOptions,
    /// Size of the terminal at its start, rows and columns.
    pub terminal: Option<(u16, u16)>,
}

/// A container that was made, and what the user should hear of it.
#[derive(Debug)]
pub struct Created {
    /// The container.
    pub container: Container,
    /// Lines for standard error.
    pub remarks: Vec<String>,
}

impl Engine {
    /// Makes a container, pulling its image if need be.
    ///
    /// # Errors
    /// `NotFound` without such an image or bundle; `AlreadyExists` when the name is taken; `InvalidInput` for options
    /// that do not fit. Nothing is left then.
    pub fn create(&self, options: &CreateOptions, progress: &mut dyn Progress) -> Result<Created> {
        let created = self.draft(options, progress)?;
        created.container.set_phase(Phase::Configured)?;
        Ok(created)
    }

    /// Makes a container whose record still says that it is being made by this process: for `run`, where it counts
    /// only once its supervisor has taken over.
    pub(crate) fn draft(&self, options: &CreateOptions, progress: &mut dyn Progress) -> Result<Created> {
        if let Some(name) = &options.run.name {
            names::check(name)?;
        }
        let store = self.store()?;
        let hold = store.hold()?;
        let origin = match &options.source {
            Source::Image(name) => Origin::Image(Box::new(self.find_or_pull(name, options, progress)?)),
            Source::Bundle(path) => Origin::Bundle(Box::new(bundle::open(path, &options.run)?)),
        };
        let mut draft = Draft::begin(self, options, &origin)?;
        let remarks = match &origin {
            Origin::Image(image) => {
                let lowers = self.lowers(&store, &hold, image)?;
                draft.fill_from_image(options, image, lowers)?
            }
            Origin::Bundle(bundle) => draft.fill_from_bundle(bundle)?,
        };
        Ok(Created { container: draft.finish()?, remarks })
    }

    /// Finds the image, or pulls it as the options say.
    pub(crate) fn find_or_pull(
        &self,
        name: &str,
        options: &CreateOptions,
        progress: &mut dyn Progress,
    ) -> Result<Image> {
        let pull = PullOptions { platform: options.run.platform.clone(), ..options.pull.clone() };
        if pull.policy != Policy::Always && pull.platform.is_none() {
            match self.image(name) {
                Err(fault) if fault.kind() == Kind::NotFound => {}
                other => return other,
            }
        }
        let reference: Reference =
            name.parse().map_err(|error: bale_spec::reference::InvalidReference| {
                let fault = Fault::new(Kind::InvalidInput, error.to_string());
                if Path::new(name).is_dir() {
                    fault.hint(format!("for the bundle, write ./{name}"))
                } else {
                    fault
                }
            })?;
        self.pull(&reference, &pull, progress).map(|pulled| pulled.image).map_err(|fault| {
            let fault = match &pull.platform {
                Some(platform) => fault.within(format!("find {name} for {platform}")),
                None => fault,
            };
            let bundle = Path::new(name).join("config.json").exists();
            if bundle {
                // The registry's own hint would win over this one, which is the likelier mistake.
                Fault::new(fault.kind(), fault.chain())
                    .hint(format!("for the bundle in that directory, write ./{name}"))
            } else {
                fault
            }
        })
    }
}

enum Origin {
    Image(Box<Image>),
    Bundle(Box<bundle::Opened>),
}

/// A container in the making: removed again unless it is finished.
struct Draft<'a> {
    engine: &'a Engine,
    dir: Option<Dir>,
    record: Record,
    details: Details,
}

impl<'a> Draft<'a> {
    /// Writes the record down, then claims the name.
    fn begin(engine: &'a Engine, options: &CreateOptions, origin: &Origin) -> Result<Self> {
        let id = new_id()?;
        let dir = Dir::reserve(&engine.containers(), &id)?;
        let run = &options.run;
        let mut details = Details {
            name: run.name.clone().unwrap_or_default(),
            options: run.clone(),
            stop_timeout_seconds: run.stop_timeout_seconds.unwrap_or(STOP_TIMEOUT_SECONDS),
            auto_remove: run.auto_remove,
            tty: run.tty,
            interactive: run.interactive,
            ..Details::default()
        };
        let bundle = match origin {
            Origin::Image(image) => {
                details.image = shown_image(options, image);
                details.image_manifest = Some(image.manifest_digest);
                details.image_id = Some(image.config_digest);
                dir.path().join("bundle")
            }
            Origin::Bundle(bundle) => {
                details.image = bundle.path.to_string_lossy().into_owned();
                bundle.path.clone()
            }
        };
        let mut record = Record::new(&id, Phase::Creating, &bundle.to_string_lossy(), time::now());
        record.supervisor = Some(ProcessId::of(rustix::process::getpid().as_raw_nonzero().get())?);
        let mut draft = Self { engine, dir: Some(dir), record, details };
        draft.claim_name()?;
        Ok(draft)
    }

    fn claim_name(&mut self) -> Result<()> {
        let id = self.record.id.clone();
        let engine = self.engine;
        if self.details.name.is_empty() {
            return engine
                .claim_invented(&id, |name| {
                    name.clone_into(&mut self.details.name);
                    self.save()
                })
                .map(|_| ());
        }
        self.save()?;
        if let Some(broken) = engine.broken_owner_of(&self.details.name) {
            engine.remove_dir(broken, crate::RemoveOptions { force: true, volumes: true })?;
        }
        engine.claim_name(&self.details.name, &id)
    }

    fn dir(&self) -> Result<&Dir> {
        self.dir.as_ref().ok_or_else(|| Fault::new(Kind::Internal, "a container that was given away"))
    }

    fn save(&mut self) -> Result<()> {
        self.record.engine = self.details.to_value()?;
        self.dir()?.lock()?.save(&self.record)
    }

    /// Makes everything that a container of an image has.
    fn fill_from_image(
        &mut self,
        options: &CreateOptions,
        image: &Image,
        lowers: Vec<PathBuf>,
    ) -> Result<Vec<String>> {
        let root = rootfs::of_layers(&lowers)?;
        let generated = self.generate(options, &image.config, &root)?;
        for name in ["bundle", "bundle/rootfs", "upper", "work"] {
            let made = rustix::fs::mkdirat(self.dir()?, name, Mode::from_raw_mode(0o755));
            made.call(|| format!("mkdirat({name:?})"))?;
        }
        bale_store::adopt_root(&root, &RootFd::open(self.dir()?.path().join("upper"))?)?;
        self.write("bundle/image-config.json", &image.config_bytes)?;
        self.write_etc(&options.run, &generated)?;
        host::make_directories(&generated.create_directories)?;
        self.details.lowers = Some(lowers);
        self.take(&generated);
        // Anonymous volumes are in the record before they exist, so that removing the container finds them.
        self.save()?;
        self.engine.prepare_volumes(&generated.volumes, Some(&root))?;
        self.write_config(generated.config, options)?;
        let mut remarks = generated.warnings;
        if options.run.network == Network::Unset {
            remarks.push(NO_NETWORK.to_owned());
        }
        Ok(remarks)
    }

    fn generate(&self, options: &CreateOptions, image: &ImageConfig, root: &RootFd) -> Result<Generated> {
        let dir = self.dir()?.path();
        let own = |name: &str| Some(dir.join(name).to_string_lossy().into_owned());
        let etc =
            EtcFiles { resolv_conf: own("resolv.conf"), hostname: own("hostname"), hosts: own("hosts") };
        let facts = generate::HostFacts {
            container_id: self.record.id.clone(),
            root_path: "rootfs".to_owned(),
            passwd: rootfs::read_text(root, "/etc/passwd")?,
            group: rootfs::read_text(root, "/etc/group")?,
            volumes: self.engine.volumes().to_string_lossy().into_owned(),
            etc,
            ..host::facts(&options.run)?
        };
        generate::config(image, &options.run, &facts)
    }

    fn take(&mut self, generated: &Generated) {
        let process = generated.config.process.as_ref();
        self.details.command = process.map(|p| p.args.clone()).unwrap_or_default();
        self.details.volumes.clone_from(&generated.volumes);
        self.details.labels.clone_from(&generated.labels);
        self.details.stop_signal = generated.stop_signal;
        self.details.seccomp = generated.default_seccomp.then(|| "default".to_owned());
        self.details.init = generated.init;
    }

    /// Makes what a container of a bundle has: the bundle stays as it is.
    fn fill_from_bundle(&mut self, bundle: &bundle::Opened) -> Result<Vec<String>> {
        rustix::fs::mkdirat(self.dir()?, "bundle", Mode::from_raw_mode(0o755))
            .call(|| "mkdirat(\"bundle\")")?;
        let process = bundle.config.process.as_ref();
        self.details.command = process.map(|p| p.args.clone()).unwrap_or_default();
        self.details.tty = process.is_some_and(|p| p.terminal);
        self.details.labels = self.details.options.labels.clone();
        self.details.stop_signal = bundle.stop_signal;
        self.details.init = self.details.options.init;
        self.write("bundle/config.json", bundle.config.to_canonical().as_bytes())?;
        self.save()?;
        Ok(bundle.remarks.clone())
    }

    fn write_config(&self, mut config: RuntimeConfig, options: &CreateOptions) -> Result<()> {
        if let (Some(process), Some((height, width))) = (&mut config.process, options.terminal)
            && process.terminal
        {
            process.console_size = Some(ConsoleSize { height, width });
        }
        self.write("bundle/config.json", config.to_canonical().as_bytes())
    }

    /// Writes the files that are bound over those of `/etc`.
    fn write_etc(&self, run: &RunOptions, generated: &Generated) -> Result<()> {
        let hostname = generated.config.hostname.clone().unwrap_or_else(host::name);
        let hosts = generate::hosts_file(run, &host::text("/etc/hosts"));
        self.write("hosts", hosts.as_bytes())?;
        self.write("hostname", generate::hostname_file(&hostname).as_bytes())?;
        self.write("resolv.conf", generate::resolv_conf_file(run, &host::text("/etc/resolv.conf")).as_bytes())
    }

    /// Writes a file of the container's directory, readable for all users of the container.
    fn write(&self, path: &str, content: &[u8]) -> Result<()> {
        let mode = Mode::from_raw_mode(0o644);
        let dir = self.dir()?;
        let (below, name) = path.rsplit_once('/').map_or((None, path), |(below, name)| (Some(below), name));
        let written = match below {
            None => file::replace(dir, name, content, mode, Durability::Process),
            Some(below) => {
                let below = RootFd::open(dir.path().join(below))?;
                file::replace(&below, name, content, mode, Durability::Process)
            }
        };
        written.map_err(Fault::from).within(|| format!("write {path} of the container"))
    }

    fn finish(mut self) -> Result<Container> {
        self.save()?;
        let dir =
            self.dir.take().ok_or_else(|| Fault::new(Kind::Internal, "a container that was given away"))?;
        Ok(Container { dir, record: self.record.clone(), details: self.details.clone() })
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        let Some(dir) = self.dir.take() else { return };
        // The failure that brought us here is the one to tell; what is left shows up in `ps -a`.
        let _ = self.engine.remove_dir(dir, crate::RemoveOptions { force: true, volumes: true });
    }
}

/// Said when nobody chose a network.
pub(crate) const NO_NETWORK: &str =
    "the container has no network but loopback; for the host's network, give --net host";

/// Returns the image as `ps` shows it: as typed when that was a name, else the name it was found by.
fn shown_image(options: &CreateOptions, image: &Image) -> String {
    match (&options.source, &image.reference) {
        (Source::Image(word), _) if word.parse::<Reference>().is_ok() => word.clone(),
        (_, Some(reference)) => reference.familiar(),
        (Source::Image(word), None) => word.clone(),
        (Source::Bundle(path), None) => path.to_string_lossy().into_owned(),
    }
}

impl Container {
    /// Writes a phase down that has no process of its own.
    ///
    /// # Errors
    /// The failed call.
    pub(crate) fn set_phase(&self, phase: Phase) -> Result<()> {
        let locked = self.dir.lock()?;
        let mut record = locked.load()?;
        record.phase = phase;
        record.supervisor = None;
        locked.save(&record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slash_in_front_makes_a_bundle() {
        for (word, bundle) in [
            ("./redis", true),
            ("/containers/redis", true),
            ("../x", true),
            (".", true),
            ("redis/", true),
            ("redis", false),
            ("library/redis:7", false),
            ("127.0.0.1:5000/redis", false),
        ] {
            assert_eq!(matches!(Source::parse(word), Source::Bundle(_)), bundle, "{word}");
        }
    }
}
