use super::*;

/// Surroundings of a test: one variable, no files.
pub(crate) struct Here;

impl Surroundings for Here {
    fn variable(&self, name: &str) -> Option<String> {
        (name == "SET").then(|| "yes".to_owned())
    }

    fn working_directory(&self) -> String {
        "/work".to_owned()
    }

    fn read(&self, path: &str) -> Result<String> {
        match path {
            "vars" => Ok("A=file\nB=2\n".to_owned()),
            "labels" => Ok("x=file\n".to_owned()),
            _ => Err(Fault::new(Kind::NotFound, format!("open {path}: no such file"))),
        }
    }
}

fn list(words: &[&str]) -> Vec<String> {
    words.iter().map(|w| (*w).to_owned()).collect()
}

fn some(word: &str) -> Option<String> {
    Some(word.to_owned())
}

#[test]
fn nothing_asked_is_the_default() {
    assert_eq!(resolve(&Flags::default(), &Here).unwrap(), RunOptions::default());
}

#[test]
fn files_come_before_flags() {
    let flags = Flags {
        env: list(&["A=flag", "SET", "UNSET"]),
        env_file: list(&["vars"]),
        label: list(&["x=flag", "y"]),
        label_file: list(&["labels"]),
        ..Flags::default()
    };
    let options = resolve(&flags, &Here).unwrap();
    assert_eq!(options.env, ["A=file", "B=2", "A=flag", "SET=yes", "UNSET"]);
    assert_eq!(options.labels.get("x").map(String::as_str), Some("flag"));
    let missing = Flags { env_file: list(&["nope"]), ..Flags::default() };
    assert_eq!(resolve(&missing, &Here).unwrap_err().chain(), "--env-file nope: open nope: no such file");
}

#[test]
fn an_empty_entrypoint_takes_the_images_away() {
    let of = |word: &str| {
        resolve(&Flags { entrypoint: some(word), ..Flags::default() }, &Here).unwrap().entrypoint
    };
    assert_eq!(of(""), Some(vec![]));
    assert_eq!(of("/bin/id -u"), Some(list(&["/bin/id -u"])));
}

#[test]
fn limits_are_read() {
    let flags = Flags {
        memory: some("64m"),
        memory_swap: some("-1"),
        memory_reservation: some("32m"),
        cpus: some("1.5"),
        cpu_shares: some("512"),
        cpuset_cpus: some("0-1"),
        pids_limit: some("100"),
        oom_score_adj: some("-5"),
        shm_size: some("0"),
        ulimit: list(&["nofile=1:2", "core=0", "nofile=3"]),
        stop_signal: some("sigint"),
        stop_timeout: some("-1"),
        ..Flags::default()
    };
    let options = resolve(&flags, &Here).unwrap();
    let limits = Limits {
        memory_bytes: Some(64 << 20),
        memory_swap_bytes: Some(-1),
        memory_reservation_bytes: Some(32 << 20),
        nano_cpus: Some(1_500_000_000),
        cpu_shares: Some(512),
        cpuset_cpus: some("0-1"),
        pids: Some(100),
        oom_score_adj: Some(-5),
        ..Limits::default()
    };
    assert_eq!(options.limits, limits);
    assert_eq!(options.shm_size_bytes, None);
    let limits: Vec<_> = options.ulimits.iter().map(|l| (l.kind.as_str(), l.soft, l.hard)).collect();
    assert_eq!(limits, [("RLIMIT_CORE", 0, 0), ("RLIMIT_NOFILE", 3, 3)]);
    assert_eq!((options.stop_signal, options.stop_timeout_seconds), (Some(2), Some(-1)));
}

#[test]
fn wrong_flags_say_why() {
    type Edit = fn(&mut Flags);
    let cases: [(Edit, &str); 33] = [
        (|f| f.name = some("-x"), "--name \"-x\": invalid container name"),
        (
            |f| f.workdir = some("rel"),
            "--workdir \"rel\": the working directory needs to be an absolute path",
        ),
        (
            |f| f.hostname = some("a b"),
            "--hostname \"a b\": is not a name of 1 to 64 characters without spaces",
        ),
        (
            |f| f.network = some("hots"),
            "--network \"hots\": there is no such network; did you mean \"host\"?",
        ),
        (
            |f| f.network = some("container:x"),
            "--network \"container:x\": sharing a container's network is not supported yet",
        ),
        (|f| f.network = some("bridge"), "--network \"bridge\": bridge networks are not supported yet"),
        (|f| f.publish = list(&["80:80"]), "--publish \"80:80\": publishing ports is not supported yet"),
        (|f| f.restart = some("always"), "--restart \"always\": restart policies are not supported yet"),
        (|f| f.restart = some("alwys"), "--restart \"alwys\": unknown policy; did you mean \"always\"?"),
        (|f| f.memory = some("12q"), "--memory \"12q\": unit \"q\" is unknown"),
        (|f| f.memory_swap = some("64m"), "--memory-swap without --memory"),
        (|f| (f.memory, f.memory_swap) = (some("64m"), some("32m")), "--memory-swap is below --memory"),
        (
            |f| (f.memory, f.memory_reservation) = (some("10m"), some("20m")),
            "--memory-reservation is above --memory",
        ),
        (|f| (f.cpus, f.cpu_quota) = (some("1"), some("1000")), "--cpus beside --cpu-quota or --cpu-period"),
        (|f| f.cpus = some("abc"), "--cpus \"abc\": is not a number of processors"),
        (|f| f.cpuset_cpus = some("a"), "--cpuset-cpus \"a\": is not a list of numbers and ranges"),
        (|f| f.pids_limit = some("x"), "--pids-limit \"x\": is not a whole number from -1 on"),
        (|f| f.blkio_weight = some("5"), "--blkio-weight \"5\": is not 10 to 1000"),
        (|f| f.stop_signal = some("TREM"), "--stop-signal \"TREM\": invalid signal; did you mean \"TERM\"?"),
        (
            |f| f.stop_timeout = some("soon"),
            "--stop-timeout \"soon\": is not a whole number from -1 to 2147483648",
        ),
        (|f| f.add_host = list(&["foo"]), "--add-host \"foo\": is not NAME:ADDRESS"),
        (|f| f.add_host = list(&["foo:bar"]), "--add-host \"foo:bar\": \"bar\" is not an IP address"),
        (|f| f.dns = list(&["x"]), "--dns \"x\": is not an IP address"),
        (|f| f.dns_search = list(&["a b"]), "--dns-search \"a b\": is not one word"),
        (
            |f| f.platform = some("a/b/c/d"),
            "--platform: invalid platform \"a/b/c/d\": want os/arch[/variant], such as linux/amd64",
        ),
        (
            |f| f.cap_add = list(&["NET_ADMN"]),
            "--cap-add \"NET_ADMN\": unknown capability; did you mean \"CAP_NET_ADMIN\"?",
        ),
        (|f| f.pid = some("container:x"), "--pid \"container:x\": is not supported yet"),
        (|f| f.ipc = some("hsot"), "--ipc \"hsot\": is not \"host\"; did you mean \"host\"?"),
        (|f| f.env = list(&["=x"]), "--env \"=x\": is not an environment variable"),
        (|f| (f.volume, f.tmpfs) = (list(&["/tmp:/x/"]), list(&["/x"])), "duplicate mount point: /x"),
        (
            |f| (f.network, f.sysctl) = (some("host"), list(&["net.core.somaxconn=1"])),
            "--sysctl \"net.core.somaxconn\": not allowed, as its namespace is the host's",
        ),
        (|f| f.label = list(&["=x"]), "--label \"=x\": empty name"),
        (
            |f| f.memory_swappiness = some("101"),
            "--memory-swappiness \"101\": is not a whole number from -1 to 100",
        ),
    ];
    for (edit, words) in cases {
        let mut flags = Flags::default();
        edit(&mut flags);
        assert_eq!(resolve(&flags, &Here).unwrap_err().chain(), words);
    }
}

#[test]
fn hosts() {
    let flags = Flags {
        add_host: list(&["foo:1.2.3.4", "bar=::1", "baz:[::2]"]),
        dns: list(&["9.9.9.9"]),
        ..Flags::default()
    };
    let options = resolve(&flags, &Here).unwrap();
    let lines: Vec<_> = options.extra_hosts.iter().map(|h| format!("{} {}", h.address, h.name)).collect();
    assert_eq!(lines, ["1.2.3.4 foo", "::1 bar", "::2 baz"]);
    assert_eq!(options.dns, ["9.9.9.9"]);
}
