//! Docker's flags of `run` and `create`, as typed.

use std::ffi::OsString;

use bale_engine::{CreateOptions, Policy, PullOptions, Source};
use bale_fault::{Context as _, Fault, Kind, Result};
use bale_spec::options::{Flags, RunOptions, Surroundings, resolve};
use clap::{Args, CommandFactory};

use super::pull::RegistryArgs;

/// The largest file that a flag names, in bytes (`--env-file`, `--security-opt seccomp=`).
const FILE_LIMIT_BYTES: u64 = 16 << 20;

/// Flags that `run` and `create` share, with docker's names.
#[derive(Args)]
pub struct RunFlags {
    /// Name of the container
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Keep standard input open
    #[arg(short, long)]
    pub interactive: bool,
    /// Give the program a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Remove the container and its anonymous volumes when it ends
    #[arg(long)]
    pub rm: bool,
    /// Environment variable; KEY alone takes the value of this shell
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    env: Vec<String>,
    /// File with one environment variable per line
    #[arg(long, value_name = "FILE")]
    env_file: Vec<String>,
    /// Mount a directory of the host, or a volume
    #[arg(short, long, value_name = "SOURCE:TARGET[:OPTIONS]")]
    volume: Vec<String>,
    /// Mount, in the long spelling
    #[arg(long, value_name = "type=…,source=…,target=…")]
    mount: Vec<String>,
    /// Mount a file system in memory
    #[arg(long, value_name = "TARGET[:OPTIONS]")]
    tmpfs: Vec<String>,
    /// Network: host, or none (loopback only)
    #[arg(long, visible_alias = "net", value_name = "host|none")]
    network: Option<String>,
    /// Publish a port (not there yet: use --net host)
    #[arg(short, long, value_name = "PORTS")]
    publish: Vec<String>,
    /// User, by name or number
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Further group
    #[arg(long, value_name = "GROUP")]
    group_add: Vec<String>,
    /// Working directory
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Replace the image's entrypoint; empty takes it away
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,
    /// Host name
    #[arg(short = 'h', long, value_name = "NAME")]
    hostname: Option<String>,
    /// NIS domain name
    #[arg(long, value_name = "NAME")]
    domainname: Option<String>,
    /// Label
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    label: Vec<String>,
    /// File with one label per line
    #[arg(long, value_name = "FILE")]
    label_file: Vec<String>,
    /// OCI annotation
    #[arg(long, value_name = "KEY=VALUE")]
    annotation: Vec<String>,
    /// Line for /etc/hosts
    #[arg(long, value_name = "NAME:ADDRESS")]
    add_host: Vec<String>,
    /// Name server
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<String>,
    /// Search domain
    #[arg(long, value_name = "DOMAIN")]
    dns_search: Vec<String>,
    /// Resolver option
    #[arg(long, visible_alias = "dns-opt", value_name = "OPTION")]
    dns_option: Vec<String>,
    /// Most memory
    #[arg(short, long, value_name = "BYTES", help_heading = "Limits")]
    memory: Option<String>,
    /// Most memory and swap together; -1 is unlimited
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true, help_heading = "Limits")]
    memory_swap: Option<String>,
    /// Soft limit of memory
    #[arg(long, value_name = "BYTES", help_heading = "Limits")]
    memory_reservation: Option<String>,
    /// Inclination to swap, 0 to 100
    #[arg(long, value_name = "N", allow_hyphen_values = true, help_heading = "Limits")]
    memory_swappiness: Option<String>,
    /// Leave the container alone when memory is short
    #[arg(long, help_heading = "Limits")]
    oom_kill_disable: bool,
    /// The OOM killer's inclination, -1000 to 1000
    #[arg(long, value_name = "N", allow_hyphen_values = true, help_heading = "Limits")]
    oom_score_adj: Option<String>,
    /// Most processors
    #[arg(long, value_name = "N", help_heading = "Limits")]
    cpus: Option<String>,
    /// Relative share of the processors
    #[arg(short = 'c', long, value_name = "N", help_heading = "Limits")]
    cpu_shares: Option<String>,
    /// Period of the processors' limit, in microseconds
    #[arg(long, value_name = "N", help_heading = "Limits")]
    cpu_period: Option<String>,
    /// Time in a period, in microseconds
    #[arg(long, value_name = "N", allow_hyphen_values = true, help_heading = "Limits")]
    cpu_quota: Option<String>,
    /// Processors to use, such as 0-3,7
    #[arg(long, value_name = "LIST", help_heading = "Limits")]
    cpuset_cpus: Option<String>,
    /// NUMA nodes to use
    #[arg(long, value_name = "LIST", help_heading = "Limits")]
    cpuset_mems: Option<String>,
    /// Most processes; -1 is unlimited
    #[arg(long, value_name = "N", allow_hyphen_values = true, help_heading = "Limits")]
    pids_limit: Option<String>,
    /// Weight of block devices, 10 to 1000
    #[arg(long, value_name = "N", help_heading = "Limits")]
    blkio_weight: Option<String>,
    /// Size of /dev/shm
    #[arg(long, value_name = "BYTES", help_heading = "Limits")]
    shm_size: Option<String>,
    /// Resource limit of the process, such as nofile=1024:2048
    #[arg(long, value_name = "NAME=SOFT[:HARD]", help_heading = "Limits")]
    ulimit: Vec<String>,
    /// Kernel parameter of the container's namespaces
    #[arg(long, value_name = "KEY=VALUE", help_heading = "Limits")]
    sysctl: Vec<String>,
    /// Add a capability
    #[arg(long, value_name = "CAPABILITY", help_heading = "Confinement")]
    cap_add: Vec<String>,
    /// Take a capability away
    #[arg(long, value_name = "CAPABILITY", help_heading = "Confinement")]
    cap_drop: Vec<String>,
    /// Give a device of the host
    #[arg(long, value_name = "SOURCE[:TARGET[:rwm]]", help_heading = "Confinement")]
    device: Vec<String>,
    /// Rule for the device cgroup, such as 'c 42:* rmw'
    #[arg(long, value_name = "RULE", help_heading = "Confinement")]
    device_cgroup_rule: Vec<String>,
    /// Take all confinement away
    #[arg(long, help_heading = "Confinement")]
    privileged: bool,
    /// no-new-privileges, seccomp=FILE|unconfined, apparmor=…, systempaths=unconfined
    #[arg(long, value_name = "OPTION", help_heading = "Confinement")]
    security_opt: Vec<String>,
    /// Make the root file system read-only
    #[arg(long, help_heading = "Confinement")]
    read_only: bool,
    /// PID namespace: host
    #[arg(long, value_name = "host|private", help_heading = "Confinement")]
    pid: Option<String>,
    /// IPC namespace: host or private
    #[arg(long, value_name = "host|private", help_heading = "Confinement")]
    ipc: Option<String>,
    /// UTS namespace: host
    #[arg(long, value_name = "host|private", help_heading = "Confinement")]
    uts: Option<String>,
    /// Cgroup namespace: host or private
    #[arg(long, value_name = "host|private", help_heading = "Confinement")]
    cgroupns: Option<String>,
    /// Run a small init as pid 1, which reaps orphans and passes signals on
    #[arg(long)]
    init: bool,
    /// Signal that asks the container to stop
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// Seconds between that and SIGKILL
    #[arg(long, value_name = "SECONDS", allow_hyphen_values = true)]
    stop_timeout: Option<String>,
    /// Restart policy: no (others are not there yet)
    #[arg(long, value_name = "POLICY")]
    restart: Option<String>,
    /// Platform of the image, such as linux/arm64
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
    /// When the registry is asked
    #[arg(long, value_name = "always|missing|never", default_value = "missing", value_parser = parse_policy)]
    pull: Policy,
    /// Do not show the progress of a pull
    #[arg(short, long)]
    pub quiet: bool,
    /// Write the container's id to this file
    #[arg(long, value_name = "FILE")]
    pub cidfile: Option<std::path::PathBuf>,
    #[command(flatten)]
    registry: RegistryArgs,
}

/// Refuses more processors than there are, as docker does: such a limit limits nothing.
fn check_cpus(run: &RunOptions) -> Result<()> {
    let Ok(there) = std::thread::available_parallelism() else { return Ok(()) };
    let most = u64::try_from(there.get()).unwrap_or(u64::MAX).saturating_mul(1_000_000_000);
    if run.limits.nano_cpus.is_some_and(|wanted| wanted > most) {
        let words = format!("--cpus: there are only {there} processors");
        return Err(Fault::new(Kind::InvalidInput, words).hint(format!("give 0.01 to {there}")));
    }
    Ok(())
}

fn parse_policy(text: &str) -> std::result::Result<Policy, String> {
    match text {
        "always" => Ok(Policy::Always),
        "missing" => Ok(Policy::Missing),
        "never" => Ok(Policy::Never),
        _ => Err(format!(
            "want always, missing or never{}",
            bale_spec::suggest::did_you_mean(text, ["always", "missing", "never"])
        )),
    }
}

impl RunFlags {
    /// Reads what was typed.
    ///
    /// # Errors
    /// `InvalidInput` names the flag and what would be right.
    pub fn resolve(self, image: &str, command: Vec<String>) -> Result<CreateOptions> {
        let mut pull = PullOptions { policy: self.pull, ..PullOptions::default() };
        let source = Source::parse(image);
        if let (Source::Image(_), Ok(reference)) = (&source, image.parse::<bale_spec::Reference>()) {
            pull.registry = self.registry.settings(reference.registry());
        }
        let run = self.into_options(command)?;
        check_cpus(&run)?;
        let terminal = run.tty.then(|| bale_engine::terminal_size(rustix::stdio::stdout())).flatten();
        Ok(CreateOptions { source, run, pull, terminal })
    }

    fn into_options(self, command: Vec<String>) -> Result<RunOptions> {
        let flags = Flags {
            name: self.name,
            command,
            entrypoint: self.entrypoint,
            env: self.env,
            env_file: self.env_file,
            user: self.user,
            group_add: self.group_add,
            workdir: self.workdir,
            hostname: self.hostname,
            domainname: self.domainname,
            tty: self.tty,
            interactive: self.interactive,
            label: self.label,
            label_file: self.label_file,
            annotation: self.annotation,
            volume: self.volume,
            mount: self.mount,
            tmpfs: self.tmpfs,
            network: self.network,
            publish: self.publish,
            add_host: self.add_host,
            dns: self.dns,
            dns_search: self.dns_search,
            dns_option: self.dns_option,
            device: self.device,
            device_cgroup_rule: self.device_cgroup_rule,
            cap_add: self.cap_add,
            cap_drop: self.cap_drop,
            privileged: self.privileged,
            security_opt: self.security_opt,
            read_only: self.read_only,
            init: self.init,
            memory: self.memory,
            memory_swap: self.memory_swap,
            memory_reservation: self.memory_reservation,
            memory_swappiness: self.memory_swappiness,
            oom_kill_disable: self.oom_kill_disable,
            oom_score_adj: self.oom_score_adj,
            cpus: self.cpus,
            cpu_shares: self.cpu_shares,
            cpu_period: self.cpu_period,
            cpu_quota: self.cpu_quota,
            cpuset_cpus: self.cpuset_cpus,
            cpuset_mems: self.cpuset_mems,
            pids_limit: self.pids_limit,
            blkio_weight: self.blkio_weight,
            shm_size: self.shm_size,
            ulimit: self.ulimit,
            sysctl: self.sysctl,
            pid: self.pid,
            ipc: self.ipc,
            uts: self.uts,
            cgroupns: self.cgroupns,
            stop_signal: self.stop_signal,
            stop_timeout: self.stop_timeout,
            rm: self.rm,
            platform: self.platform,
            restart: self.restart,
        };
        resolve(&flags, &Here)
    }
}

/// This process's environment, directory and files.
pub struct Here;

impl Surroundings for Here {
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn working_directory(&self) -> String {
        std::env::current_dir()
            .map(|path| path.to_string_lossy().into_owned())
            .unwrap_or_else(|_| "/".to_owned())
    }

    fn read(&self, path: &str) -> Result<String> {
        use std::io::Read;
        let mut text = String::new();
        let words = || format!("read {path:?}");
        let file = std::fs::File::open(path).within(words)?;
        file.take(FILE_LIMIT_BYTES + 1).read_to_string(&mut text).within(words)?;
        if text.len() as u64 > FILE_LIMIT_BYTES {
            let why = format!("it is larger than {FILE_LIMIT_BYTES} bytes");
            return Err(Fault::new(Kind::InvalidInput, why).within(words()));
        }
        Ok(text)
    }
}

/// Makes a file that holds a container's id; it must not exist yet.
///
/// # Errors
/// `AlreadyExists`, or the failed call.
pub fn write_cidfile(path: &std::path::Path, id: &str) -> Result<()> {
    use std::io::Write;
    let words = || format!("write --cidfile {path:?}");
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(path).within(words)?;
    file.write_all(id.as_bytes()).within(words)
}

/// Puts `--` behind the first word that is no flag of `run`, `create` or `exec`: what follows belongs to the container's
/// program, even if it looks like a flag of ours (docker's rule).
#[must_use]
pub fn separate(arguments: Vec<OsString>) -> Vec<OsString> {
    let cli = super::Cli::command();
    let Some(verb) = words(&cli, &arguments, 1) else { return arguments };
    let name = arguments[verb].to_str().filter(|name| matches!(*name, "run" | "create" | "exec"));
    let Some(command) = name.and_then(|name| cli.find_subcommand(name)) else { return arguments };
    let globals: Vec<&clap::Arg> = cli.get_arguments().filter(|arg| arg.is_global_set()).collect();
    let Some(word) = words_of(
        &|flag| find(command.get_arguments().chain(globals.iter().copied()), flag),
        &arguments,
        verb + 1,
    ) else {
        return arguments;
    };
    let mut separated = arguments;
    separated.insert(word + 1, "--".into());
    separated
}

fn words(command: &clap::Command, arguments: &[OsString], from: usize) -> Option<usize> {
    words_of(&|flag| find(command.get_arguments(), flag), arguments, from)
}

/// What a flag is called.
#[derive(Clone, Copy)]
enum Flag<'a> {
    Long(&'a str),
    Short(char),
}

/// Tells whether a flag takes a value; `None` for one that is not known.
fn find<'a>(mut known: impl Iterator<Item = &'a clap::Arg>, flag: Flag<'_>) -> Option<bool> {
    let found = known.find(|arg| match flag {
        Flag::Long(name) => {
            arg.get_long() == Some(name) || arg.get_visible_aliases().unwrap_or_default().contains(&name)
        }
        Flag::Short(letter) => arg.get_short() == Some(letter),
    });
    found.map(|arg| arg.get_action().takes_values())
}

/// Finds the first argument that is neither a flag nor its value; `None` also where a flag is not known, as clap will
/// say so.
fn words_of(find: &dyn Fn(Flag<'_>) -> Option<bool>, arguments: &[OsString], from: usize) -> Option<usize> {
    let mut at = from;
    while let Some(argument) = arguments.get(at) {
        let text = argument.to_str()?;
        if text == "--" {
            return None;
        }
        let takes_next = if let Some(long) = text.strip_prefix("--") {
            if long.contains('=') { false } else { find(Flag::Long(long))? }
        } else if text.len() > 1 && text.starts_with('-') {
            cluster_takes_next(find, &text[1..])?
        } else {
            return Some(at);
        };
        at += 1 + usize::from(takes_next);
    }
    None
}

/// Tells whether `-itv` needs another argument: the first letter that takes a value takes what follows it.
fn cluster_takes_next(find: &dyn Fn(Flag<'_>) -> Option<bool>, letters: &str) -> Option<bool> {
    for (index, letter) in letters.char_indices() {
        if find(Flag::Short(letter))? {
            return Some(index + letter.len_utf8() == letters.len());
        }
    }
    Some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_the_image_is_the_programs() {
        for (typed, wanted) in [
            ("bale run redis --port 7000", "bale run redis -- --port 7000"),
            ("bale run --rm -it -e A=1 redis -x", "bale run --rm -it -e A=1 redis -- -x"),
            ("bale run -itv /a:/b redis ls", "bale run -itv /a:/b redis -- ls"),
            ("bale run -v/a:/b redis ls", "bale run -v/a:/b redis -- ls"),
            ("bale run --net host redis", "bale run --net host redis --"),
            ("bale run --net=host redis -- x", "bale run --net=host redis -- -- x"),
            ("bale --root /x run --root /y redis -x", "bale --root /x run --root /y redis -- -x"),
            ("bale exec -it web sh -c x", "bale exec -it web -- sh -c x"),
            ("bale run --nope redis -x", "bale run --nope redis -x"),
            ("bale run -- redis -x", "bale run -- redis -x"),
            ("bale ps -a", "bale ps -a"),
            ("bale", "bale"),
        ] {
            let arguments = typed.split(' ').map(OsString::from).collect();
            let separated: Vec<String> =
                separate(arguments).into_iter().map(|a| a.into_string().unwrap()).collect();
            assert_eq!(separated.join(" "), wanted);
        }
    }
}
