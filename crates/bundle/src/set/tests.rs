use super::*;

fn bundle() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(CONFIG), bale_spec::generate::spec(false).to_canonical()).unwrap();
    dir
}

fn config(dir: &tempfile::TempDir) -> Value {
    serde_json::from_slice(&std::fs::read(dir.path().join(CONFIG)).unwrap()).unwrap()
}

fn edit(dir: &tempfile::TempDir, edits: &[&str]) -> Result<Vec<Change>> {
    let edits: Vec<String> = edits.iter().map(|e| (*e).to_owned()).collect();
    set(dir.path(), &edits, Options::default())
}

/// Each edit of the default config makes exactly these changes.
#[test]
fn edits_and_what_they_change() {
    let cases = [
        ("process.env.TZ=UTC", "process.env[2]: \"TZ=UTC\" added"),
        ("process.env.TERM=dumb", "process.env[1]: \"TERM=xterm\" -> \"TERM=dumb\""),
        ("process.env+=A=b=c", "process.env[2]: \"A=b=c\" added"),
        ("process.env.TERM-=", "process.env[1]: \"TERM=xterm\" removed"),
        ("process.env-=TERM", "process.env[1]: \"TERM=xterm\" removed"),
        ("process.env[1]=X=1", "process.env[1]: \"TERM=xterm\" -> \"X=1\""),
        ("process.args=[\"redis-server\"]", "process.args[0]: \"sh\" -> \"redis-server\""),
        ("process.args+=-c", "process.args[1]: \"-c\" added"),
        ("process.args+=sh", "process.args[1]: \"sh\" added"),
        ("process.user.uid=1000", "process.user.uid: 0 -> 1000"),
        ("process.user.umask=0o27", "process.user.umask: 23 added"),
        ("process.user.additionalGids+=5", "process.user.additionalGids: [5] added"),
        ("process.terminal=false", "process.terminal: true -> false"),
        ("process.cwd=/data", "process.cwd: \"/\" -> \"/data\""),
        ("process.rlimits.RLIMIT_NOFILE.hard=4096", "process.rlimits[0].hard: 1024 -> 4096"),
        (
            "process.rlimits+=core=0",
            "process.rlimits[1]: {\"type\":\"RLIMIT_CORE\",\"hard\":0,\"soft\":0} added",
        ),
        (
            "process.rlimits-=nofile",
            "process.rlimits[0]: {\"type\":\"RLIMIT_NOFILE\",\"hard\":1024,\"soft\":1024} removed",
        ),
        ("hostname=\"web 1\"", "hostname: \"bale\" -> \"web 1\""),
        ("hostname-=", "hostname: \"bale\" removed"),
        ("root.readonly=false", "root.readonly: true -> false"),
        ("mounts[/sys].options-=ro", "mounts[5].options[3]: \"ro\" removed"),
        ("mounts[\"/dev/shm\"].options[4]=size=1m", "mounts[3].options[4]: \"size=65536k\" -> \"size=1m\""),
        (
            "mounts-=/dev/mqueue",
            "mounts[4]: {\"destination\":\"/dev/mqueue\",\"type\":\"mqueue\",\"source\":\"mqueue\",\"options\":[\"nosuid\",\"noexec\",\"nodev\"]} removed",
        ),
        (
            "mounts+=/data,type=bind,src=/srv,ro",
            "mounts[7]: {\"destination\":\"/data\",\"type\":\"bind\",\"source\":\"/srv\",\"options\":[\"rbind\",\"rro\",\"rprivate\"]} added",
        ),
        (
            "mounts+=/tmp",
            "mounts[7]: {\"destination\":\"/tmp\",\"type\":\"tmpfs\",\"source\":\"tmpfs\",\"options\":[\"noexec\",\"nosuid\",\"nodev\",\"rprivate\"]} added",
        ),
        (
            "mounts+={\"destination\":\"/x\",\"type\":\"tmpfs\"}",
            "mounts[7]: {\"destination\":\"/x\",\"type\":\"tmpfs\"} added",
        ),
        ("annotations.com.example.a=b", "annotations: {\"com.example.a\":\"b\"} added"),
        ("annotations[\"a=b\"]=c", "annotations: {\"a=b\":\"c\"} added"),
        ("linux.sysctl.net.core.somaxconn=1024", "linux.sysctl: {\"net.core.somaxconn\":\"1024\"} added"),
        ("linux.resources.memory.limit=64m", "linux.resources.memory: {\"limit\":67108864} added"),
        ("linux.resources.memory.swap=-1", "linux.resources.memory: {\"swap\":-1} added"),
        ("linux.resources.pids.limit=100", "linux.resources.pids: {\"limit\":100} added"),
        (
            "linux.resources.devices+=c 10:200 rw",
            "linux.resources.devices[1]: {\"allow\":true,\"type\":\"c\",\"major\":10,\"minor\":200,\"access\":\"rw\"} added",
        ),
        ("linux.namespaces-=network", "linux.namespaces[1]: {\"type\":\"network\"} removed"),
        ("linux.namespaces+=cgroup", "linux.namespaces[5]: {\"type\":\"cgroup\"} added"),
        (
            "linux.namespaces.network.path=/proc/1/ns/net",
            "linux.namespaces[1].path: \"/proc/1/ns/net\" added",
        ),
        ("linux.maskedPaths-=/proc/scsi", "linux.maskedPaths[9]: \"/proc/scsi\" removed"),
        ("linux.timeOffsets={}", "linux.timeOffsets: {} added"),
        ("linux.rootfsPropagation=rslave", "linux.rootfsPropagation: \"rslave\" added"),
        (
            "process.capabilities.bounding+=net_admin",
            "process.capabilities.bounding[3]: \"CAP_NET_ADMIN\" added",
        ),
    ];
    let mut wrong = Vec::new();
    for (text, wanted) in cases {
        let dir = bundle();
        match edit(&dir, &[text]) {
            Ok(changes) if changes.iter().map(ToString::to_string).collect::<Vec<_>>() == [wanted] => {}
            other => wrong.push(format!("{text}: {other:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn wrong_edits_say_why_and_change_nothing() {
    let cases = [
        ("process.argv=[\"x\"]", "process has no key \"argv\"; did you mean \"args\"?"),
        ("proces.cwd=/", "config.json has no key \"proces\"; did you mean \"process\"?"),
        (
            "linux.resources.memory.limt=1",
            "linux.resources.memory has no key \"limt\"; did you mean \"limit\"?",
        ),
        ("process.user.uid=root", "process.user.uid is a whole number from 0 to 4294967295, not \"root\""),
        (
            "process.user.uid=4294967296",
            "process.user.uid is a whole number from 0 to 4294967295, not \"4294967296\"",
        ),
        ("process.terminal=yes", "\"yes\" is not true or false"),
        ("process.args=sh", "\"sh\" is not a list"),
        ("process.args=[1]", "[0]: is a number, not a string"),
        ("process.cwd=data", "process.cwd would be wrong: \"data\" is not an absolute path"),
        ("process.args=[]", "process.args would be wrong: names no program to run"),
        ("mounts[/prc].type=proc", "no element has the destination \"/prc\"; did you mean \"/proc\"?"),
        ("mounts[9].type=proc", "[9] is beyond the list of 7"),
        (
            "mounts+={\"destintion\":\"/x\"}",
            "destintion: unknown key: every runtime ignores it; did you mean \"destination\"?",
        ),
        ("mounts+=data", "\"data\" is no mount"),
        ("mounts+=/x,type=bind", "--mount \"dst=/x,type=bind\": a bind mount needs src=/path"),
        ("mounts-=/sy", "mounts has no \"/sy\"; did you mean \"/sys\"?"),
        ("linux.namespaces+=netwrok", "type: \"netwrok\" is unknown here; did you mean \"network\"?"),
        (
            "linux.namespaces-=mount",
            "linux.namespaces would be wrong: has no mount namespace: the container's mounts would be the host's",
        ),
        ("linux.resources.memory.limit=64q", "linux.resources.memory.limit \"64q\": unit \"q\" is unknown"),
        ("process.env-=TZ", "process.env has no \"TZ\""),
        ("process.env.TZ-=", "process.env.TZ is not there"),
        ("process.env+=TZ", "\"TZ\" is not KEY=value"),
        ("process.capabilities+=NET_ADMN", "\"NET_ADMN\" is no capability; did you mean \"CAP_NET_ADMIN\"?"),
        ("process.cwd+=/x", "process.cwd is a string: += is for lists and objects"),
        ("process.cwd.x=1", "process.cwd is a string: nothing is below it"),
        ("process.cwd", "there is no = in it"),
        ("=x", "there is no path before the ="),
        ("a..b=x", "the path \"a..b\" is malformed"),
        ("mounts[0=x", "the path \"mounts[0\" is malformed"),
        (
            "hostname=0123456789012345678901234567890123456789012345678901234567890123456789",
            "hostname would be wrong: is longer than the 64 bytes that the kernel keeps",
        ),
    ];
    let dir = bundle();
    let before = std::fs::read(dir.path().join(CONFIG)).unwrap();
    for (text, words) in cases {
        let fault = edit(&dir, &["process.env.A=1", text]).unwrap_err().chain();
        assert!(fault.ends_with(&format!(": {words}")), "{text}: {fault}");
    }
    assert_eq!(std::fs::read(dir.path().join(CONFIG)).unwrap(), before);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn capabilities_are_given_to_three_sets_and_taken_from_all() {
    let dir = bundle();
    assert_eq!(edit(&dir, &["process.capabilities+=net_raw"]).unwrap().len(), 3);
    assert_eq!(edit(&dir, &["process.capabilities+=CAP_NET_RAW"]).unwrap(), []);
    assert_eq!(edit(&dir, &["process.capabilities-=KILL"]).unwrap().len(), 3);
    let sets = &config(&dir)["process"]["capabilities"];
    assert_eq!(
        sets["bounding"],
        serde_json::json!(["CAP_AUDIT_WRITE", "CAP_NET_BIND_SERVICE", "CAP_NET_RAW"])
    );
}

#[test]
fn the_history_takes_changes_back_one_by_one() {
    let dir = bundle();
    let first = config(&dir);
    assert_eq!(undo(dir.path()).unwrap_err().kind(), Kind::NotFound);
    edit(&dir, &["process.env.TZ=UTC"]).unwrap();
    let second = config(&dir);
    edit(&dir, &["process.env.TZ=CET", "hostname=x"]).unwrap();
    assert_eq!(edit(&dir, &["hostname=x"]).unwrap(), []);
    let entries = history(dir.path()).unwrap();
    assert_eq!(entries.iter().map(|e| (e.number, e.changes.len())).collect::<Vec<_>>(), [(2, 2), (1, 1)]);
    let back = undo(dir.path()).unwrap();
    assert_eq!(back[0].to_string(), "process.env[2]: \"TZ=CET\" -> \"TZ=UTC\"");
    assert_eq!(config(&dir), second);
    undo(dir.path()).unwrap();
    assert_eq!(config(&dir), first);
    assert!(undo(dir.path()).is_err() && history(dir.path()).unwrap().is_empty());
}

#[test]
fn an_interrupted_change_leaves_nothing_to_undo() {
    let dir = bundle();
    edit(&dir, &["hostname=a"]).unwrap();
    // Killed after the history was written and before config.json was replaced.
    std::fs::copy(dir.path().join(CONFIG), dir.path().join(HISTORY).join("0002.json")).unwrap();
    assert_eq!(history(dir.path()).unwrap().len(), 1);
    assert_eq!(undo(dir.path()).unwrap()[0].to_string(), "hostname: \"a\" -> \"bale\"");
    assert!(undo(dir.path()).is_err());
}

#[test]
fn order_indentation_and_unknown_keys_are_kept() {
    let dir = bundle();
    let text = "{\n\t\"ociVersion\": \"1.0.0\",\n\t\"x-own\": 1,\n\t\"root\": {\n\t\t\"path\": \"rootfs\"\n\t},\n\t\"linux\": {\n\t\t\"namespaces\": [\n\t\t\t{\n\t\t\t\t\"type\": \"mount\"\n\t\t\t},\n\t\t\t{\n\t\t\t\t\"type\": \"uts\"\n\t\t\t}\n\t\t]\n\t}\n}\n";
    std::fs::write(dir.path().join(CONFIG), text).unwrap();
    edit(&dir, &["hostname=h", "process.cwd=/", "process.args=[\"a\"]", "process.user.uid=1"]).unwrap();
    let after = std::fs::read_to_string(dir.path().join(CONFIG)).unwrap();
    let keys: Vec<&str> = after.lines().filter_map(|l| l.strip_prefix("\t\"")?.split('"').next()).collect();
    assert_eq!(keys, ["ociVersion", "x-own", "process", "root", "hostname", "linux"]);
    assert!(after.contains("\n\t\t\"args\""), "{after}");
    let force = Options { force: true, ..Options::default() };
    set(dir.path(), &["x-own=2".to_owned(), "process.cwd=rel".to_owned()], force).unwrap();
    assert_eq!(config(&dir)["x-own"], 2);
    let dry = Options { dry_run: true, ..Options::default() };
    assert_eq!(set(dir.path(), &["hostname=other".to_owned()], dry).unwrap().len(), 1);
    assert_eq!(config(&dir)["hostname"], "h");
}

#[test]
fn the_history_is_bounded_and_legacy_bundles_are_sent_to_upgrade() {
    let dir = bundle();
    for number in 0..HISTORY_LIMIT + 5 {
        edit(&dir, &[&format!("process.env.N={number}")]).unwrap();
    }
    assert_eq!(std::fs::read_dir(dir.path().join(HISTORY)).unwrap().count(), HISTORY_LIMIT);
    std::fs::write(
        dir.path().join(CONFIG),
        "{\"version\":\"0.2.0\",\"process\":{},\"linux\":{\"capabilities\":[]}}",
    )
    .unwrap();
    let fault = edit(&dir, &["hostname=x"]).unwrap_err();
    assert_eq!(fault.kind(), Kind::Unsupported);
    assert!(fault.innermost_hint().is_some_and(|h| h.starts_with("bale upgrade")));
}
