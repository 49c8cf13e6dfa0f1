//! Plays a transcript in the tree of the other tools.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use bale_testkit::machine::{Scope, Snapshot};
use bale_testkit::peers::Peers;
use bale_testkit::{Scratch, command, image, note_skip};

/// Longer than any transcript takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(300);

/// Goes before what an engine needs. `$RT` is the runtime, `$S` the scratch folder, `$CG` the cgroup; `$W` goes away
/// with the mount namespace.
const BEFORE: &str = r#"
set +eu
[ -n "${ALONE:-}" ] || ALONE=1 exec unshare --net bash -c "$SCRIPT" peers "$@"
RT=$1 S=$2 CG=$3 W=$2/w
if [ "$4" = v2 ] && [ "$(stat -f -c %T /sys/fs/cgroup)" != cgroup2fs ]; then
    umount -R /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup || exit 1
fi
mkdir -p $W && mount -t tmpfs tmpfs $W && cd $W || exit 1
busybox ip link set lo up
# Waits for a condition, for twenty seconds.
until_true() {
    local end=$((SECONDS + 20))
    until eval "$1"; do [ $SECONDS -lt $end ] || { echo "never: $1" >&2; return 1; }; sleep 0.05; done
}
# A terminal around a command, without its carriage returns and what it echoes of the input's end.
in_terminal() { script -qec "$*" /dev/null | tr -d '\r' | sed 's/\^[@D]//g'; return ${PIPESTATUS[0]}; }
memory_limit='cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null'
export memory_limit
"#;

pub struct Stage {
    peers: Peers,
    scratch: Scratch,
    before: Snapshot,
    cgroup: String,
}

/// One command of a transcript.
#[derive(Debug, Default)]
struct Step {
    line: usize,
    command: String,
    stdout: String,
    stderr: Vec<String>,
    code: i32,
}

impl Stage {
    /// Finds the tree; without one the test is left out.
    pub fn new() -> Option<Self> {
        let peers = Peers::find()?;
        let scratch = Scratch::new("callers");
        let cgroup = name_of(&scratch);
        let before = Snapshot::take(&scope(&scratch));
        image::busybox_rootfs(&scratch.join("rootfs")).expect("busybox");
        fs::create_dir(scratch.join("bin")).expect("bin");
        let exe = scratch.join("bin/bale");
        let linked = fs::hard_link(env!("CARGO_BIN_EXE_bale"), &exe);
        linked.or_else(|_| fs::copy(env!("CARGO_BIN_EXE_bale"), &exe).map(|_| ())).expect("the binary");
        Some(Self { peers, scratch, before, cgroup })
    }

    /// Tells whether the tree has a file; without it the test is left out.
    pub fn has(&self, file: &str) -> bool {
        let there = self.peers.tree().join(file).exists();
        if !there {
            note_skip(&format!("needs {file} in the tree of the other tools"));
        }
        there
    }

    /// Returns a path of bale by another name.
    fn bale_as(&self, name: &str) -> PathBuf {
        let link = self.scratch.join("bin").join(name);
        // Asked for twice it is there.
        let _ = std::os::unix::fs::symlink("bale", &link);
        link
    }

    /// Makes `$S/box.tar`, an archive with one image.
    pub fn add_archive(&self) {
        fs::copy(image::busybox(), self.scratch.join("box.tar")).expect("archive");
    }

    /// Plays a transcript with the engine's own runtime and then with bale by each name of `ours`.
    ///
    /// Engines of another age answer some lines otherwise: what their own runtime does not answer as written is not
    /// asked of bale either, and is counted as left out. The first of `peers` that can run here at all is the judge.
    pub fn play(&self, peers: &[&str], ours: &[&str], layout: &str, engine: [&str; 2], transcript: &str) {
        let steps = read(transcript);
        let mut odd = Vec::new();
        for peer in peers {
            odd = self.play_once(Path::new(peer), layout, engine, &steps);
            if odd.len() * 4 <= steps.len() {
                for (line, _) in &odd {
                    note_skip(&format!("this {peer} answers line {line} otherwise"));
                }
                break;
            }
            // It wants a privilege that is not here, and says nothing about the transcript.
            note_skip(&format!("this {peer} answers {} of {} lines otherwise", odd.len(), steps.len()));
            odd.clear();
        }
        for name in ours {
            let mut wrong = self.play_once(&self.bale_as(name), layout, engine, &steps);
            wrong.retain(|(line, _)| odd.iter().all(|(known, _)| known != line));
            assert!(wrong.is_empty(), "bale as {name}:\n{}", shown(&wrong));
        }
    }

    /// Returns the lines that were not answered as written, with what is wrong. `setup` and `end` are the engine's.
    fn play_once(
        &self,
        runtime: &Path,
        layout: &str,
        [setup, end]: [&str; 2],
        steps: &[Step],
    ) -> Vec<(usize, String)> {
        let mut script = format!("{BEFORE}{setup}\n");
        for step in steps {
            script.push_str(&format!(
                "{{ {}\n}} >$S/{1}.out 2>$S/{1}.err </dev/null\n",
                step.command, step.line
            ));
            script.push_str(&format!("echo $? >$S/{}.code\n", step.line));
        }
        script.push_str(&format!("{end}exit 0\n"));
        let output = self.run(&script, runtime, layout);
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {}: {words}", runtime.display(), output.status);
        steps.iter().filter_map(|step| Some((step.line, self.compare(step)?))).collect()
    }

    fn run(&self, script: &str, runtime: &Path, layout: &str) -> Output {
        let arguments = [runtime, self.scratch.path(), Path::new(&self.cgroup), Path::new(layout)];
        let mut command = self.peers.command(script, arguments);
        command.env("PODMAN_IGNORE_CGROUPSV1_WARNING", "1");
        let said = fs::File::create(self.scratch.join("said")).expect("said");
        command.stdin(Stdio::null()).stdout(said.try_clone().expect("dup")).stderr(said);
        let mut child = command.spawn().expect("unshare");
        // `unshare --kill-child` takes the rest of its pid namespace along.
        let status = command::wait_at_most(&mut child, LIMIT).expect("wait");
        self.remove_cgroups();
        let stderr = fs::read(self.scratch.join("said")).unwrap_or_default();
        Output { status, stdout: Vec::new(), stderr }
    }

    /// Removes the test's cgroups: engines leave the parents that they made, and podman those of conmon.
    fn remove_cgroups(&self) {
        let deadline = Instant::now() + Duration::from_secs(2);
        let [own, below] = ["", "/*"].map(|end| format!("*/{}{end}", self.cgroup));
        let find = |last: &[&str]| {
            let mut command = Command::new("find");
            command.args([
                "/sys/fs/cgroup",
                "-depth",
                "-type",
                "d",
                "(",
                "-path",
                &own,
                "-o",
                "-path",
                &below,
                ")",
            ]);
            command.args(last);
            command.output().expect("find").stdout
        };
        // The kernel takes the processes out in its own time.
        while !find(&["-exec", "rmdir", "{}", ";"]).is_empty() || !find(&["-print"]).is_empty() {
            if Instant::now() > deadline {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Returns what is wrong with the answer to a step.
    fn compare(&self, step: &Step) -> Option<String> {
        let part = |name: &str| {
            fs::read_to_string(self.scratch.join(format!("{}.{name}", step.line))).unwrap_or_default()
        };
        let (stdout, stderr, code) = (part("out"), part("err"), part("code"));
        let same = stdout.trim_end() == step.stdout.trim_end() && code.trim() == step.code.to_string();
        if same && step.stderr.iter().all(|words| stderr.contains(words.as_str())) {
            return None;
        }
        let Step { line, command, .. } = step;
        Some(format!(
            "line {line}: $ {command}\nwanted {}, {:?} and {:?}; got {}, {stdout:?} and {stderr:?}",
            step.code,
            step.stdout,
            step.stderr,
            code.trim()
        ))
    }

    /// Wants nothing to be left.
    pub fn assert_clean(self) {
        self.before.assert_nothing_left(&scope(&self.scratch), "after the engines' end");
    }
}

/// Other tests run at the same time: only what names this one's folder counts.
fn scope(scratch: &Scratch) -> Scope {
    // A few bytes for each test.
    let name: &'static str = Box::leak(name_of(scratch).into_boxed_str());
    Scope::below(scratch.path()).cgroups_of(name)
}

fn name_of(scratch: &Scratch) -> String {
    scratch.path().file_name().and_then(|name| name.to_str()).expect("a name").to_owned()
}

fn shown(wrong: &[(usize, String)]) -> String {
    wrong.iter().map(|(_, words)| format!("{words}\n")).collect()
}

/// Reads a transcript.
fn read(text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let (kind, rest) = line.split_at(line.len().min(1));
        let rest = rest.strip_prefix(' ').unwrap_or(rest);
        if kind == "$" {
            steps.push(Step { line: number, command: rest.to_owned(), ..Step::default() });
            continue;
        }
        let Some(step) = steps.last_mut() else {
            assert!(matches!(kind, "#" | ""), "line {number} belongs to no command");
            continue;
        };
        match kind {
            "#" | "" => {}
            ">" => step.command.push_str(&format!("\n{rest}")),
            "|" => step.stdout.push_str(&format!("{rest}\n")),
            "=" => step.code = rest.parse().expect("a number"),
            "~" => step.stderr.push(rest.to_owned()),
            _ => panic!("line {number}: {line:?}"),
        }
    }
    steps
}
