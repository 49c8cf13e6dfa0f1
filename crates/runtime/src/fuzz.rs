//! Fuzz targets; `testkit/src/fuzz.rs` says how they are run. None of them has an effect: plans are values.

use std::path::Path;

use bale_spec::runtime::{DeviceRule, Resources, RuntimeConfig, Seccomp};

use crate::cgroup::devices;
use crate::cgroup::host::Host;
use crate::cgroup::{Controller, Layout, stats, v1, v2};
use crate::init::report::Failure;
use crate::options::RootSource;
use crate::plan::{self, Choices, ExecChoices, Facts, Plan, V1Hierarchy};
use crate::seccomp::simulate::{ARCHITECTURES, Data, by_the_words, is_early, number, run};
use crate::seccomp::{compile, rules};

fn facts(layout: Layout) -> Facts {
    let hierarchy = |name: &str| V1Hierarchy { name: name.to_owned(), controllers: vec![name.to_owned()] };
    Facts {
        layout,
        v1: vec![hierarchy("cpu"), hierarchy("memory")],
        capabilities: (1 << 41) - 1,
        selinux: true,
        kcore: true,
        home: "/root".to_owned(),
        own_network: false,
        links: [(0, "target".into())].into(),
        resctrl: Some("/sys/fs/resctrl".into()),
        listen_fds: Some(1),
        own_namespaces: 0,
    }
}

/// `config.json`, from its text to the plan of a container and of a process in it.
pub fn config_plan(data: &[u8]) {
    let Ok(config) = RuntimeConfig::parse(data) else { return };
    for (layout, alternative) in [(Layout::Unified, false), (Layout::Hybrid, true)] {
        let overlay =
            RootSource::Overlay { lowers: vec!["/l".into()], upper: "/u".into(), work: "/w".into() };
        let choices = Choices {
            id: "web",
            bundle: Path::new("/bundle"),
            root: if alternative { &overlay } else { &RootSource::Config },
            wait_for_start: alternative,
            place_stdio: alternative,
            cgroup: true,
            systemd: false,
            no_pivot: alternative,
            no_new_keyring: alternative,
        };
        match Plan::new(&config, &choices, &facts(layout)) {
            Ok(plan) => {
                let text = plan.to_string();
                assert!(text.lines().any(|line| line.starts_with("program ")), "{text}");
                assert!(text.contains(" Exec") || text.contains("exec"), "{text}");
            }
            Err(fault) => assert!(!fault.chain().is_empty()),
        }
    }
    if let Some(process) = &config.process {
        let choices = ExecChoices {
            id: "web",
            cgroup_namespace: true,
            pid_namespace: true,
            join_cgroups: true,
            user_namespace: true,
            place_stdio: true,
            no_new_keyring: false,
            personality: None,
            groups: &[],
            memory_policy: config.linux.as_ref().and_then(|l| l.memory_policy.as_ref()),
            filter: None,
        };
        let _ = plan::exec(process, choices, &facts(Layout::Unified));
    }
    if let Some(resources) = config.linux.as_ref().and_then(|l| l.resources.as_ref()) {
        limits(resources);
    }
}

/// Every limit goes to a file of the cgroup itself, as one write.
fn limits(resources: &Resources) {
    let current = |file: &str| (file == "memory.current").then(|| "4096".to_owned());
    let settings = Controller::ALL.into_iter().flat_map(|controller| {
        let both = [v1::settings(controller, resources), v2::settings(controller, resources, &current)];
        both.into_iter().flatten().flatten()
    });
    for setting in settings.chain(v2::unified(resources).into_iter().flatten()) {
        for (file, _) in &setting.choices {
            let is_plain = !file.is_empty() && !file.contains(['/', '\0']) && file != ".." && file != ".";
            assert!(is_plain && file.contains('.'), "{setting:?}");
        }
    }
    device_rules(&resources.devices);
}

/// Device rules as a program decide as the rules say.
fn device_rules(rules: &[DeviceRule]) {
    let Ok(resolved) = devices::resolve(rules) else { return };
    let _ = devices::lines(&resolved);
    let program = devices::program(&resolved);
    let numbers = rules.iter().flat_map(|rule| [rule.major, rule.minor]).flatten();
    let numbers: Vec<u32> =
        numbers.filter_map(|n| u32::try_from(n).ok()).chain([0, 1, 5, 10, 136]).take(8).collect();
    for (major, minor) in numbers.iter().flat_map(|major| numbers.iter().map(move |minor| (*major, *minor))) {
        for (kind, access) in (1..=2).flat_map(|kind| (1..8).map(move |access| (kind, access))) {
            let asked = (kind, access, major, minor);
            let verdict = devices::simulate::run(&program, kind, access, major, minor) == 1;
            let wanted = devices::simulate::by_the_words(&resolved, kind, access, major, minor);
            assert_eq!(verdict, wanted, "{asked:?} {resolved:?}");
        }
    }
}

/// A seccomp profile: its program decides as the rules say, for the calls it names and their neighbours.
pub fn seccomp(data: &[u8]) {
    let Ok(profile) = serde_json::from_slice::<Seccomp>(data) else { return };
    let Ok(program) = compile(&profile) else { return };
    if program.instructions.is_empty() {
        return;
    }
    assert!(program.instructions.len() <= 4096);
    let (rules, default) =
        (rules::resolve(&profile).expect("compiled"), rules::default_answer(&profile).expect("compiled"));
    let mut values: Vec<u64> = profile
        .syscalls
        .iter()
        .flat_map(|rule| &rule.args)
        .flat_map(|arg| [arg.value, arg.value_two.unwrap_or(0)])
        .take(4)
        .collect();
    values.extend([0, 1, u64::from(u32::MAX), 1 << 32, u64::MAX]);
    for (name, architecture, bit) in ARCHITECTURES {
        let is_named = |word: &str| profile.architectures.iter().any(|a| a == word);
        if name == "x86" && !is_named("SCMP_ARCH_X86") || name == "x32" && !is_named("SCMP_ARCH_X32") {
            continue;
        }
        let named =
            || profile.syscalls.iter().flat_map(|rule| &rule.names).filter_map(|call| number(call, name));
        let newest = named().max().unwrap_or(u32::MAX);
        let asked = named().take(8).flat_map(|n| [n.saturating_sub(1), n, n + 1]);
        let known = |n: &u32| rules::is_permissive(default) || *n <= newest && !is_early(&profile, name, *n);
        for number in asked.filter(known) {
            for rotation in 0..values.len() {
                let mut args = std::array::from_fn(|at| values[(rotation + at) % values.len()]);
                if name == "x86" {
                    args = args.map(|arg: u64| arg & u64::from(u32::MAX));
                }
                let data = Data { number: number | bit, architecture, args };
                let (answer, wanted) =
                    (run(&program.instructions, &data).0, by_the_words(&rules, default, name, &data));
                assert_eq!(answer, wanted, "{name} {data:x?} {profile:?}");
            }
        }
    }
}

/// What the kernel says of cgroups and mounts, and what init says of itself: texts between NUL bytes.
pub fn kernel(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut parts = text.split('\0');
    let (mountinfo, own, path) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    );
    if let Ok(host) = Host::parse(mountinfo, own) {
        for hierarchy in host.v1.iter().chain(&host.unified) {
            if let Ok(below) = hierarchy.below(path) {
                let below = below.to_string();
                assert!(!below.split('/').any(|part| part == ".."), "{below}");
                assert!(below.len() > 1, "the root of a hierarchy");
            }
        }
    }
    assert!(stats::numbers(&text.chars().take(64).collect::<String>()).len() <= 32 * 65_536);
    let _ = stats::v1_blkio_entries(&text);
    if let Some((failure, words)) = Failure::decode(data) {
        assert!(words.len() <= 3 * data.len(), "{failure:?}");
    }
}

/// What the kernel answers on a socket of rtnetlink.
pub fn netlink(data: &[u8]) {
    use bale_sys::netlink::{Address, Link, Request, attributes, messages};
    let Ok(found) = messages(data) else { return };
    assert!(found.iter().map(|message| message.body.len() + 16).sum::<usize>() <= data.len());
    for message in found {
        if let Ok(list) = attributes(message.body) {
            assert!(list.iter().map(|(_, payload)| payload.len() + 4).sum::<usize>() <= message.body.len());
        }
        if let Ok(link) = Link::read(message.body) {
            assert!(!link.name.contains('\0') && link.name.len() <= message.body.len());
        }
        let Ok(address) = Address::read(message.body) else { continue };
        // What is carried over is read back, but for what is no wish.
        let request = Request::add_address(&address, address.index).bytes(1);
        let read = messages(&request).ok().and_then(|sent| Address::read(sent[0].body).ok());
        let read = read.expect("a request is well formed");
        assert_eq!(Address { flags: 0, ..read }, Address { flags: 0, ..address });
    }
}

/// What systemd answers, and what a config has it asked: a message of D-Bus; or texts between NUL bytes, the unit's path, a
/// list of processors, the name and the value of a property.
pub fn systemd(data: &[u8]) {
    use crate::cgroup::systemd::wire::{FIXED, MESSAGE_MAX, length_of, parse};
    if let Ok(Some(length)) = length_of(data) {
        assert!((FIXED..=MESSAGE_MAX).contains(&length), "{length}");
        if let Some(Ok(message)) = data.get(..length).map(parse) {
            let mut values = message.body();
            while values.text().is_ok() {}
            let mut values = message.body();
            while values.u32().is_ok() {}
        }
    }
    let text = String::from_utf8_lossy(data);
    let mut parts = text.split('\0');
    let mut next = || parts.next().unwrap_or_default();
    crate::cgroup::systemd::fuzz_words(next(), next(), next(), next());
}

#[cfg(test)]
bale_testkit::fuzz_targets! {
    config_plan: 2000,
    seccomp: 1500,
    kernel: 10_000,
    netlink: 10_000,
    systemd: 10_000,
}
