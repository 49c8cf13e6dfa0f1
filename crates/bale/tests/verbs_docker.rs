//! Every verb beside docker: the transcripts in `tests/verbs` are command lines with what docker answered, recorded once
//! from real runs; bale runs the same lines (under the name `docker`) and must answer the same.
//!
//! | line | meaning |
//! |---|---|
//! | `# …` | remark |
//! | `? v1` | the next command is only for a host with cgroup v1 |
//! | `$ …`, `> …` | command for `sh`, and its further lines |
//! | `\| …` | standard output of docker, and of bale |
//! | `= N` | exit code of docker, and of bale; 0 when absent |
//! | `! …` | standard error of docker: bale has words of its own, but is silent when docker is |
//! | `~ …` | written by hand: what bale's standard error contains |
//! | `@ name` | written by hand: a decision, listed in `docs/differences-from-docker.md`; bale's answer follows: |
//! | `@\| …`, `@= N` | bale's standard output and exit code |
//!
//! Ids, times, scratch folders and addresses are replaced by words on both sides. Recorded from docker 28.5.2 (overlay2,
//! runc 1.3.6, cgroup v1, `--bridge=none`). To record again, start a dockerd and run this test with
//! `BALE_VERBS_RECORD=1`: then `docker` is whatever `PATH` has, and the files are written anew.

#![allow(
    clippy::unwrap_used,
    reason = "a transcript or a machine that is not as it should be fails the test"
)]

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bale_testkit::machine::{Scope, Snapshot};
use bale_testkit::registry::{Guard, Registry};
use bale_testkit::{Bale, Outcome, command, image};

const RECORD: &str = "BALE_VERBS_RECORD";
/// Names a real registry that knows alice with the password secret, for recording.
const REGISTRY: &str = "BALE_VERBS_REGISTRY";
const DIFFERENCES: &str = include_str!("../../../docs/differences-from-docker.md");
/// Said by bale alone, wherever no network is chosen (docs/differences-from-docker.md).
const NO_NETWORK: &str =
    "bale: the container has no network but loopback; for the host's network, give --net host";

/// Said by docker alone, about a machine that is no router.
const NO_FORWARDING: &str = "IPv4 forwarding is disabled";

macro_rules! transcripts {
    ($($name:ident)*) => { $(#[test] fn $name() { check(stringify!($name)); })* };
}

transcripts! { run_basics run_identity run_files run_limits run_confined life exec logs ps inspect volumes images registry }

/// Answer to a command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Answer {
    stdout: Vec<String>,
    code: i32,
}

/// A decision to answer otherwise than docker.
struct Decision {
    name: String,
    answer: Answer,
}

struct Step {
    /// Remarks and blank lines in front.
    head: Vec<String>,
    command: Vec<String>,
    docker: Answer,
    docker_stderr: Vec<String>,
    wanted: Vec<String>,
    decision: Option<Decision>,
}

impl Step {
    /// Tells whether this host can show what docker's did.
    fn applies(&self) -> bool {
        !self.head.iter().any(|line| line == "? v1") || Path::new("/sys/fs/cgroup/memory").is_dir()
    }

    fn expected(&self) -> &Answer {
        self.decision.as_ref().map_or(&self.docker, |decision| &decision.answer)
    }

    /// Tells what is wrong with bale's answer.
    fn faults(&self, outcome: &Outcome, words: &Words) -> Vec<String> {
        let mut faults = Vec::new();
        let got = words.answer(outcome);
        let stderr = words.lines(&outcome.stderr);
        if got != *self.expected() {
            let show = |answer: &Answer| format!("= {}\n| {}", answer.code, answer.stdout.join("\n| "));
            faults.push(format!("want\n{}\ngot\n{}", show(self.expected()), show(&got)));
        }
        let wants_words = !self.docker_stderr.is_empty() || !self.wanted.is_empty();
        if self.decision.is_none() && wants_words == stderr.is_empty() {
            faults.push(if wants_words { "docker says a word" } else { "docker is silent" }.to_owned());
        }
        let terminal = self.command.iter().any(|line| line.contains("script -q"));
        if !terminal && (outcome.stdout.contains('\u{1b}') || outcome.stderr.contains('\u{1b}')) {
            faults.push("colour without a terminal".to_owned());
        }
        let missing = self.wanted.iter().filter(|part| !stderr.join("\n").contains(part.as_str()));
        faults.extend(missing.map(|part| format!("standard error without {part:?}")));
        if faults.is_empty() {
            return faults;
        }
        faults.insert(0, format!("\n$ {}", self.command.join("\n> ")));
        faults.push(format!("stderr: {}", stderr.join("\n        ")));
        faults
    }
}

fn parse(text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut head = Vec::new();
    for line in text.lines() {
        let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
        let rest = rest.to_owned();
        if mark == "$" {
            let head = std::mem::take(&mut head);
            let (docker, docker_stderr, wanted) = (Answer::default(), Vec::new(), Vec::new());
            steps.push(Step { head, command: vec![rest], docker, docker_stderr, wanted, decision: None });
            continue;
        }
        let last = steps.last_mut();
        match (mark, last) {
            ("" | "#" | "?", _) => head.push(line.to_owned()),
            (">", Some(step)) => step.command.push(rest),
            ("|", Some(step)) => step.docker.stdout.push(rest),
            ("=", Some(step)) => step.docker.code = rest.parse().unwrap(),
            ("!", Some(step)) => step.docker_stderr.push(rest),
            ("~", Some(step)) => step.wanted.push(rest),
            ("@", Some(step)) => step.decision = Some(Decision { name: rest, answer: Answer::default() }),
            ("@|", Some(step)) => step.decision.as_mut().unwrap().answer.stdout.push(rest),
            ("@=", Some(step)) => step.decision.as_mut().unwrap().answer.code = rest.parse().unwrap(),
            _ => panic!("what is {line:?}?"),
        }
    }
    steps
}

fn render(steps: &[Step]) -> String {
    let mut text = String::new();
    let mut put = |mark: &str, rest: &str| writeln!(text, "{mark} {rest}").unwrap();
    for step in steps {
        for line in &step.head {
            let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
            put(mark, rest);
        }
        for (index, line) in step.command.iter().enumerate() {
            put(if index == 0 { "$" } else { ">" }, line);
        }
        step.docker.stdout.iter().for_each(|line| put("|", line));
        step.docker_stderr.iter().for_each(|line| put("!", line));
        if step.docker.code != 0 {
            put("=", &step.docker.code.to_string());
        }
        step.wanted.iter().for_each(|line| put("~", line));
        if let Some(decision) = &step.decision {
            put("@", &decision.name);
            decision.answer.stdout.iter().for_each(|line| put("@|", line));
            if decision.answer.code != 0 {
                put("@=", &decision.answer.code.to_string());
            }
        }
    }
    text.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// What stands for things that differ from run to run.
struct Words(Vec<(String, &'static str)>);

impl Words {
    fn answer(&self, outcome: &Outcome) -> Answer {
        Answer { stdout: self.lines(&outcome.stdout), code: outcome.code }
    }

    fn lines(&self, text: &str) -> Vec<String> {
        let mut text = text.replace('\r', "\\r");
        for (found, word) in &self.0 {
            text = text.replace(found, word);
        }
        // `script` shows the end of its own standard input, when it comes.
        text = text.replace("^@", "");
        let lines = text.lines().map(|line| without_ids(line).trim_end().to_owned());
        lines.filter(|line| line.trim_end_matches("\\r") != NO_NETWORK).collect()
    }
}

/// Replaces runs of 64 and 12 hex digits by `<id>` and `<short>`, and times by `<time>`.
fn without_ids(line: &str) -> String {
    let mut shown = String::new();
    let mut rest = line;
    while !rest.is_empty() {
        let hex = rest.bytes().take_while(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b)).count();
        if hex == 64 || (hex == 12 && !rest[hex..].starts_with(|c: char| c.is_ascii_alphanumeric())) {
            shown.push_str(if hex == 64 { "<id>" } else { "<short>" });
            rest = &rest[hex..];
        } else if let Some(length) = length_of_time(rest) {
            shown.push_str("<time>");
            rest = &rest[length..];
        } else {
            let next = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len()).max(1);
            let next = (next..=rest.len()).find(|&at| rest.is_char_boundary(at)).unwrap();
            shown.push_str(&rest[..next]);
            rest = &rest[next..];
        }
    }
    shown
}

/// Returns the length of an RFC 3339 time at the start of `text`.
fn length_of_time(text: &str) -> Option<usize> {
    let fits = text.bytes().zip(b"0000-00-00T00:00:00".iter());
    let same =
        |(found, shape): (u8, &u8)| if *shape == b'0' { found.is_ascii_digit() } else { found == *shape };
    let whole = text.len() >= 19 && fits.into_iter().all(same);
    let tail = |c: char| !(c.is_ascii_digit() || c == '.' || c == 'Z');
    whole.then(|| 19 + text[19..].find(tail).unwrap_or(text.len() - 19))
}

/// Where the commands run: the tool as `docker` in `PATH`, a home, a root file system, a registry.
struct Place {
    bale: Bale,
    /// The registry in this process, unless another one is named.
    _registry: Registry,
    host: String,
    path: String,
}

impl Place {
    fn make(peer: bool) -> Self {
        let bale = bale_testkit::bale!();
        let bin = bale.dir().join("bin");
        for name in ["bin", "home", "work"] {
            fs::create_dir(bale.dir().join(name)).unwrap();
        }
        let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let path = if peer { path.to_owned() } else { format!("{}:{path}", bin.display()) };
        std::os::unix::fs::symlink(bale.exe(), bin.join("docker")).unwrap();
        let registry = Registry::start();
        // alice:secret
        registry.guard(Guard::Basic("Basic YWxpY2U6c2VjcmV0".to_owned()));
        let host = std::env::var(REGISTRY).unwrap_or_else(|_| registry.host());
        Self { bale, _registry: registry, host, path }
    }

    fn words(&self) -> Words {
        let dir = self.bale.dir().display().to_string();
        Words(vec![(dir, "<dir>"), (self.host.clone(), "<registry>")])
    }

    fn run(&self, script: &str) -> Outcome {
        // A command that hangs fails (124) instead of holding the whole run up.
        let mut command = Command::new("timeout");
        command
            .args(["-k", "1", "20", "sh", "-c", script])
            .current_dir(self.bale.dir().join("work"))
            .stdin(Stdio::null());
        command.env_clear().env("PATH", &self.path).env("LC_ALL", "C.UTF-8").env("TERM", "xterm");
        command.env("HOME", self.bale.dir().join("home")).env("BALE_ROOT", self.bale.root());
        command.env("ROOTFS", rootfs()).env("REGISTRY", &self.host).env("SHOWN", "from-the-shell");
        command::finish(&mut command)
    }
}

/// Returns the archive that the images are imported from.
fn rootfs() -> PathBuf {
    let make = |dir: &Path| -> io::Result<()> {
        let tree = dir.join("rootfs");
        image::busybox_rootfs(&tree)?;
        // A folder that volumes are filled from, and a program that cannot be executed.
        fs::create_dir_all(tree.join("data/sub"))?;
        fs::write(tree.join("data/sub/seed"), "seed\n")?;
        for (path, owner, mode) in
            [("data", 1000, 0o750), ("data/sub", 1000, 0o755), ("data/sub/seed", 1000, 0o640)]
        {
            std::os::unix::fs::chown(tree.join(path), Some(owner), Some(owner))?;
            fs::set_permissions(tree.join(path), fs::Permissions::from_mode(mode))?;
        }
        fs::write(tree.join("etc/plain"), "not a program\n")?;
        let mut tar = Command::new("tar");
        tar.args(["--numeric-owner", "--sort=name", "-cf"])
            .arg(dir.join("rootfs.tar"))
            .arg("-C")
            .arg(tree)
            .arg(".");
        bale_testkit::output_of(&mut tar).map(drop)
    };
    image::cached(&bale_testkit::cache_dir(), "verbs-1", make).unwrap().join("rootfs.tar")
}

fn check(name: &str) {
    bale_testkit::require_root!();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/verbs/{name}.txt"));
    let mut steps = parse(&fs::read_to_string(&file).unwrap());
    let record = std::env::var_os(RECORD).is_some();
    let place = Place::make(record);
    let words = place.words();
    let scope = Scope::below(place.bale.dir());
    let before = Snapshot::take(&scope);
    let mut faults = Vec::new();
    for step in &mut steps {
        if !step.applies() {
            continue;
        }
        let begin = std::time::Instant::now();
        let outcome = place.run(&step.command.join("\n"));
        if std::env::var_os("BALE_VERBS_TIMES").is_some() {
            let _ = writeln!(
                io::stderr(),
                "{:>6} ms  $ {}",
                begin.elapsed().as_millis(),
                step.command.join("; ")
            );
        }
        if record {
            step.docker = words.answer(&outcome);
            step.docker_stderr = words.lines(&outcome.stderr);
            for lines in [&mut step.docker.stdout, &mut step.docker_stderr] {
                lines.retain(|line| !line.contains(NO_FORWARDING));
            }
            continue;
        }
        faults.extend(step.faults(&outcome, &words));
        if let Some(decision) = &step.decision {
            let listed = DIFFERENCES.contains(&format!("| {} |", decision.name));
            assert!(listed, "{:?} is not in docs/differences-from-docker.md", decision.name);
        }
    }
    if record {
        fs::write(&file, render(&steps)).unwrap();
        return;
    }
    drop_containers(&place);
    let left = before.changes_until_settled(&scope);
    faults.extend(left.iter().map(|item| format!("left behind: {item}")));
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Removes what the transcript left, so that the machine can be compared.
fn drop_containers(place: &Place) {
    let removed = place.run("docker ps -aq --no-trunc | xargs -r docker rm -f");
    if removed.code != 0 {
        let _ = writeln!(io::stderr(), "{removed:#?}");
    }
}
