//! A bundle directory as the source of a container: opened where it is, converted in memory when it is old.

use std::path::{Path, PathBuf};

use bale_fault::{Context, Fault, Kind, Result};
use bale_spec::json::CONFIG_LIMIT_BYTES;
use bale_spec::options::{Network, RunOptions};
use bale_spec::runtime::{Namespace, NamespaceKind, RuntimeConfig};
use bale_spec::validate::Severity;
use bale_sys::file;
use bale_sys::root::RootFd;
use rustix::io::Errno;

const SIGTERM: i32 = 15;

/// A bundle that was read.
#[derive(Clone, Debug)]
pub struct Opened {
    /// Absolute path.
    pub path: PathBuf,
    /// Its config with the user's options in it.
    pub config: RuntimeConfig,
    /// Number of the signal that asks it to stop.
    pub stop_signal: i32,
    /// Lines for standard error.
    pub remarks: Vec<String>,
}

/// Reads the bundle at `path`.
///
/// # Errors
/// `NotFound` without a `config.json`; `InvalidInput` for one that cannot be used, or options that a bundle does not
/// take.
pub fn open(path: &Path, run: &RunOptions) -> Result<Opened> {
    check_options(run)?;
    let words = || format!("open the bundle {path:?}");
    let absolute = std::fs::canonicalize(path).within(words)?;
    let (mut config, mut remarks) = read(&absolute).within(words)?;
    apply(&mut config, run)?;
    let loopback_only = config.linux.as_ref().is_some_and(|linux| {
        linux.namespaces.iter().any(|n| n.kind == NamespaceKind::Network && n.path.is_none())
    });
    if loopback_only && run.network == Network::Unset {
        remarks.push(crate::create::NO_NETWORK.to_owned());
    }
    Ok(Opened { path: absolute, config, stop_signal: run.stop_signal.unwrap_or(SIGTERM), remarks })
}

fn read(path: &Path) -> Result<(RuntimeConfig, Vec<String>)> {
    let dir = RootFd::open(path)?;
    let text =
        file::read_bounded(&dir, "config.json", CONFIG_LIMIT_BYTES).map_err(|error| match error.errno() {
            Errno::NOENT => Fault::new(Kind::NotFound, "there is no config.json in it")
                .hint("make a bundle with `bale bundle IMAGE DIR`, or a config with `bale spec`"),
            _ => error.into(),
        })?;
    if serde_json::from_slice::<serde_json::Value>(&text).is_err() {
        return Err(refused(path, &text));
    }
    if let Some(converted) = bale_bundle::upgrade::convert(path, bale_spec::legacy::Options::default())? {
        let remark =
            "the bundle is in an old format and was converted in memory; `bale upgrade` shows how, for good";
        return Ok((converted.config, vec![remark.to_owned()]));
    }
    let config = RuntimeConfig::parse(&text);
    Ok((config.map_err(|_| refused(path, &text))?, Vec::new()))
}

/// Says what is wrong with a config that cannot be read, and where.
fn refused(path: &Path, text: &[u8]) -> Fault {
    let findings = bale_spec::validate::validate(text).findings.located(&String::from_utf8_lossy(text));
    let first = findings.into_iter().find(|finding| finding.severity == Severity::Error);
    let Some(first) = first else { return Fault::new(Kind::InvalidInput, "config.json cannot be read") };
    let mut words = "config.json".to_owned();
    for number in [first.line, first.column].into_iter().flatten() {
        words.push_str(&format!(":{number}"));
    }
    if !first.path.is_empty() {
        words.push_str(&format!(": {}", first.path));
    }
    let hint = first.hint.unwrap_or_else(|| check_hint(path));
    Fault::new(Kind::InvalidInput, format!("{words}: {}", first.words)).hint(hint)
}

/// What to do about a bundle that cannot be run.
pub fn check_hint(path: &Path) -> String {
    format!("`bale check {}` tells all that is wrong with it", path.display())
}

/// A bundle says itself how it is confined and limited; what names or connects the container is the user's.
fn check_options(run: &RunOptions) -> Result<()> {
    let taken = RunOptions {
        name: None,
        command: Vec::new(),
        env: Vec::new(),
        workdir: None,
        hostname: None,
        tty: false,
        interactive: false,
        labels: Default::default(),
        network: Network::default(),
        init: false,
        stop_signal: None,
        stop_timeout_seconds: None,
        auto_remove: false,
        ..run.clone()
    };
    if taken == RunOptions::default() {
        return Ok(());
    }
    let words = "a bundle takes -d, -i, -t, --rm, --name, -e, --net, -w, --hostname, --label, --init, --stop-signal, \
        --stop-timeout and a command only";
    Err(Fault::new(Kind::InvalidInput, words).hint("change its config.json with `bale set`"))
}

fn apply(config: &mut RuntimeConfig, run: &RunOptions) -> Result<()> {
    let missing =
        || Fault::new(Kind::InvalidInput, "config.json: process: missing, so there is nothing to run");
    let process = config.process.as_mut().ok_or_else(missing)?;
    if !run.command.is_empty() {
        process.args.clone_from(&run.command);
    }
    for variable in &run.env {
        let name = variable.split('=').next().unwrap_or_default();
        process.env.retain(|old| old.split('=').next() != Some(name));
        if variable.contains('=') {
            process.env.push(variable.clone());
        }
    }
    if let Some(workdir) = &run.workdir {
        process.cwd.clone_from(workdir);
    }
    process.terminal |= run.tty;
    if let Some(hostname) = &run.hostname {
        config.hostname = Some(hostname.clone());
    }
    set_network(config, run.network);
    Ok(())
}

fn set_network(config: &mut RuntimeConfig, network: Network) {
    if network == Network::Unset {
        return;
    }
    let linux = config.linux.get_or_insert_default();
    linux.namespaces.retain(|n| n.kind != NamespaceKind::Network);
    if network == Network::None {
        linux.namespaces.push(Namespace { kind: NamespaceKind::Network, path: None });
    } else {
        // They would change the host's.
        linux.sysctl.retain(|key, _| !key.starts_with("net."));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"{"ociVersion":"1.0.2","process":{"cwd":"/","args":["sh"],"env":["A=1","B=2"]},
        "root":{"path":"rootfs"},"linux":{"namespaces":[{"type":"network"},{"type":"pid"}],
        "sysctl":{"net.ipv4.ip_forward":"1","kernel.shmmax":"1"}}}"#;

    fn bundle() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), CONFIG).unwrap();
        dir
    }

    #[test]
    fn the_users_options_are_put_into_the_config() {
        let dir = bundle();
        let run = RunOptions {
            command: vec!["ls".to_owned()],
            env: vec!["A=3".to_owned(), "B".to_owned()],
            network: Network::Host,
            ..RunOptions::default()
        };
        let opened = open(dir.path(), &run).unwrap();
        let process = opened.config.process.unwrap();
        assert_eq!((process.args, process.env), (vec!["ls".to_owned()], vec!["A=3".to_owned()]));
        let linux = opened.config.linux.unwrap();
        assert_eq!((linux.namespaces.len(), linux.sysctl.len()), (1, 1));
        assert!(opened.remarks.is_empty());
    }

    #[test]
    fn what_a_bundle_does_not_take_is_refused() {
        let dir = bundle();
        let run = RunOptions { privileged: true, ..RunOptions::default() };
        assert_eq!(open(dir.path(), &run).unwrap_err().kind(), Kind::InvalidInput);
        assert_eq!(open(dir.path(), &RunOptions::default()).unwrap().remarks.len(), 1);
        std::fs::remove_file(dir.path().join("config.json")).unwrap();
        assert_eq!(open(dir.path(), &RunOptions::default()).unwrap_err().kind(), Kind::NotFound);
    }
}
