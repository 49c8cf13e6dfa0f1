//! `create` and `run`.

use crate::exit::ExitCode;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use bale_fault::{Context, Fault, Kind, Result};
use bale_record::Dir;
use bale_runtime::{CreateOptions, InitParent, RootSource, Stdio};
use bale_spec::runtime::RuntimeConfig;
use bale_spec::validate::Severity;

use super::args::{Flag, Parsed, flag, parse, value};
use super::foreground::Foreground;
use super::notify::{self, Notify};
use super::{Global, absolute};

pub const CREATE: &[Flag] = &[
    value("bundle", "b"),
    value("config", "f"),
    value("console-socket", ""),
    value("pidfd-socket", ""),
    value("pid-file", ""),
    value("preserve-fds", ""),
    flag("no-pivot", ""),
    flag("no-new-keyring", ""),
    flag("explain", ""),
];
pub const RUN: &[Flag] = &[
    value("bundle", "b"),
    value("config", "f"),
    value("console-socket", ""),
    value("pidfd-socket", ""),
    value("pid-file", ""),
    value("preserve-fds", ""),
    flag("no-pivot", ""),
    flag("no-new-keyring", ""),
    flag("detach", "d"),
    flag("keep", ""),
    flag("no-subreaper", ""),
    flag("explain", ""),
];

/// `create`: the container waits for `start`.
pub fn create(global: &Global, arguments: &[OsString]) -> Result<ExitCode> {
    let parsed = parse(CREATE, arguments, false)?.at_most(1)?;
    let id = parsed.id()?.to_owned();
    bale_sys::seal::exec_sealed(std::env::args_os())?;
    let request = Request::read(&parsed)?;
    if request.terminal() && request.console_socket.is_none() {
        return Err(no_console());
    }
    request.make(global, &id, true, |_, _, _| Ok(ExitCode::SUCCESS))
}

/// `run`: the program starts at once; without `--detach` its exit status is ours.
pub fn run(global: &Global, arguments: &[OsString]) -> Result<ExitCode> {
    let parsed = parse(RUN, arguments, false)?.at_most(1)?;
    let id = parsed.id()?.to_owned();
    bale_sys::seal::exec_sealed(std::env::args_os())?;
    let request = Request::read(&parsed)?;
    if parsed.has("detach") {
        if request.terminal() && request.console_socket.is_none() {
            return Err(no_console());
        }
        return request.make(global, &id, false, |_, created, notify| {
            if let Some(notify) = notify {
                notify.pass_on(&created.pidfd, created.pid)?;
            }
            Ok(ExitCode::SUCCESS)
        });
    }
    if request.console_socket.is_some() {
        let words = "cannot use console socket if runc will not detach or allocate tty";
        return Err(Fault::new(Kind::InvalidInput, words));
    }
    let keep = parsed.has("keep");
    let foreground = Foreground::prepare()?;
    bale_runtime::timings::stage("arguments, config");
    request.make(global, &id, false, |dir, created, notify| {
        if let Some(notify) = &notify {
            notify::in_background(notify, &created.pidfd)?;
        }
        let status = foreground.follow(&created.pidfd, created.terminal.as_ref())?;
        bale_runtime::timings::stage("the program");
        if !keep {
            bale_runtime::delete(dir, true)?;
        }
        Ok(ExitCode::from(status))
    })
}

fn no_console() -> Fault {
    Fault::new(Kind::InvalidInput, "cannot allocate tty if runc will detach without setting console socket")
        .hint("give --console-socket, or set process.terminal to false")
}

/// A request to make a container, read before anything is made.
struct Request {
    bundle: PathBuf,
    config: RuntimeConfig,
    console_socket: Option<String>,
    pidfd_socket: Option<String>,
    pid_file: Option<PathBuf>,
    preserve_fds: u32,
    no_pivot: bool,
    no_new_keyring: bool,
    explain: bool,
}

impl Request {
    fn read(parsed: &Parsed) -> Result<Self> {
        let preserve_fds = preserve_fds(parsed)?;
        let bundle = absolute(&parsed.last("bundle").unwrap_or_else(|| ".".to_owned()))?;
        let config = read_config(&bundle, parsed.last("config").as_deref())?;
        Ok(Self {
            config,
            console_socket: parsed.last("console-socket").filter(|s| !s.is_empty()),
            pidfd_socket: parsed.last("pidfd-socket").filter(|s| !s.is_empty()),
            pid_file: parsed.last("pid-file").filter(|p| !p.is_empty()).map(|p| absolute(&p)).transpose()?,
            preserve_fds,
            no_pivot: parsed.has("no-pivot"),
            no_new_keyring: parsed.has("no-new-keyring"),
            explain: parsed.has("explain"),
            bundle,
        })
    }

    /// The socket is there before a program runs that may use it.
    fn notify(&mut self, dir: &Dir, wait_for_start: bool) -> Result<Option<Notify>> {
        let mut notify = notify::set_up(dir, &mut self.config)?;
        if let Some(notify) = notify.as_mut().filter(|_| !wait_for_start) {
            notify.listen(dir)?;
        }
        Ok(notify)
    }

    fn terminal(&self) -> bool {
        self.config.process.as_ref().is_some_and(|p| p.terminal)
    }

    fn make(
        mut self,
        global: &Global,
        id: &str,
        wait_for_start: bool,
        then: impl FnOnce(Dir, bale_runtime::Created, Option<Notify>) -> Result<ExitCode>,
    ) -> Result<ExitCode> {
        let stdio = match &self.console_socket {
            Some(path) => Stdio::ConsoleSocket(connect(path)?),
            None => Stdio::Inherit,
        };
        let pidfd_socket = self.pidfd_socket.as_deref().map(connect).transpose()?;
        let dir = Dir::reserve(&global.root, id)?;
        let notify = match self.notify(&dir, wait_for_start) {
            Ok(notify) => notify,
            Err(fault) => {
                remove(&dir);
                return Err(fault);
            }
        };
        let options = CreateOptions {
            dir: &dir,
            bundle: &self.bundle,
            config: self.config,
            root: RootSource::Config,
            stdio,
            init_parent: InitParent::Own,
            wait_for_start,
            cgroup_manager: global.cgroup_manager,
            default_cgroup_parent: String::new(),
            no_pivot: self.no_pivot,
            no_new_keyring: self.no_new_keyring,
            preserve_fds: self.preserve_fds,
            pid_file: self.pid_file.as_deref(),
            pidfd_socket,
        };
        if self.explain {
            let text = bale_runtime::explain(&options);
            remove(&dir);
            return text.map(|text| super::print(&text));
        }
        tell_unknown_capabilities(global, &options.config);
        match bale_runtime::create(options) {
            Ok(created) => then(dir, created, notify),
            Err(fault) => {
                remove(&dir);
                Err(fault)
            }
        }
    }
}

/// Capabilities of another kernel are left out, with runc's words; `bale check` knows more.
fn tell_unknown_capabilities(global: &Global, config: &RuntimeConfig) {
    let Some(sets) = config.process.as_ref().and_then(|process| process.capabilities.as_ref()) else {
        return;
    };
    let all = [&sets.bounding, &sets.effective, &sets.inheritable, &sets.permitted, &sets.ambient];
    let names = all.into_iter().flatten().filter(|name| bale_sys::identity::capability(name).is_none());
    let unknown: BTreeSet<&str> = names.map(String::as_str).collect();
    if !unknown.is_empty() {
        let list: Vec<&str> = unknown.into_iter().collect();
        let words = format!("warning: ignoring unknown or unavailable capabilities: [{}]", list.join(" "));
        super::note(global, &words);
    }
}

/// Removes the directory of a container that was not made; the failure before is the one to tell.
fn remove(dir: &Dir) {
    if let Ok(locked) = dir.lock() {
        let _ = locked.remove();
    }
}

/// Connects to a socket that the caller named.
pub fn connect(path: &str) -> Result<OwnedFd> {
    use bale_sys::error::Call;
    let socket = bale_sys::socket::connect_stream(Path::new(path)).call(|| format!("connect({path:?})"))?;
    Ok(socket)
}

/// Reads how many descriptors are kept, checks that they are there, and marks all others close-on-exec.
pub fn preserve_fds(parsed: &Parsed) -> Result<u32> {
    use bale_sys::error::Call;
    let given: u32 = parsed.number("preserve-fds")?.unwrap_or(0);
    let listen = bale_runtime::listen_fds().unwrap_or(0);
    let count = given.saturating_add(listen);
    for fd in 3..3 + count.min(1024) {
        if rustix::fs::stat(format!("/proc/self/fd/{fd}").as_str()).is_err() {
            let words = format!("please check that preserved-fd {} (of {count}) is present", fd - 2);
            return Err(Fault::new(Kind::InvalidInput, words));
        }
    }
    if count > 1024 {
        return Err(Fault::new(Kind::InvalidInput, format!("--preserve-fds {count} is more than 1024")));
    }
    bale_sys::process::close_on_exec_from(3 + count).call(|| "close_range")?;
    Ok(count)
}

fn read_config(bundle: &Path, config: Option<&str>) -> Result<RuntimeConfig> {
    let path = bundle.join(config.unwrap_or("config.json"));
    let text = read_bounded(&path, bale_spec::json::CONFIG_LIMIT_BYTES)?;
    RuntimeConfig::parse(&text).map_err(|error| {
        let fault = refused(&path, &text, error);
        if bundle.join("runtime.json").exists() {
            return fault.hint("this is a bundle of 2015: `bale upgrade` converts it");
        }
        fault
    })
}

/// Says which field is at fault: the parser itself only knows the line.
fn refused(path: &Path, text: &[u8], error: bale_spec::json::Error) -> Fault {
    let findings = bale_spec::validate::validate(text).findings.located(&String::from_utf8_lossy(text));
    let first = findings.into_iter().find(|finding| finding.severity == Severity::Error);
    match first.filter(|finding| !finding.path.is_empty()) {
        Some(first) => {
            let line = first.line.map(|line| format!(":{line}")).unwrap_or_default();
            let words = format!("parse {path:?}{line}: {}: {}", first.path, first.words);
            Fault::new(Kind::InvalidInput, words)
        }
        None => Fault::new(Kind::InvalidInput, format!("parse {path:?}")).caused_by(error),
    }
}

/// Reads a file that the caller named.
pub fn read_bounded(path: &Path, limit_bytes: usize) -> Result<Vec<u8>> {
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::CLOEXEC;
    let file = match rustix::fs::open(path, flags, rustix::fs::Mode::empty()) {
        Ok(file) => file,
        Err(rustix::io::Errno::NOENT) if path.ends_with("config.json") => {
            let words = format!("JSON specification file {path:?} not found: no such file or directory");
            return Err(
                Fault::new(Kind::NotFound, words).hint("give the bundle by --bundle, or make one: spec")
            );
        }
        Err(errno) => return Err(std::io::Error::from(errno)).within(|| format!("open {path:?}")),
    };
    bale_sys::file::read_fd_bounded(file, &path.to_string_lossy(), limit_bytes).map_err(Fault::from)
}
