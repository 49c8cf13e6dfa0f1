//! A bundle directory as the source of a container: opened where it is, converted in memory when it is old.

use std::path::{Path, PathBuf};

use bale_bundle::Bundle;
use bale_fault::{Context, Fault, Kind, Result};
use bale_spec::legacy::Options;
use bale_spec::options::{Network, RunOptions};
use bale_spec::runtime::{Namespace, NamespaceKind, RuntimeConfig};

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
    let (mut config, mut remarks) = read(path)?;
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
    match Bundle::open(path)? {
        Bundle::Current(current) => Ok((current.config, Vec::new())),
        Bundle::Legacy(legacy) => {
            let remark = "the bundle is in an old format and was converted in memory; `bale upgrade` shows how, for good";
            Ok((legacy.convert(Options::default())?.config, vec![remark.to_owned()]))
        }
    }
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
