//! The binary under test, with a store of its own.

use std::ffi::OsStr;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::Scratch;

/// How a run of the binary ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The command line as a user would type it.
    pub line: String,
    /// Exit status; 128 + signal when it was killed, as a shell shows it.
    pub code: i32,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

/// The binary with its own `BALE_ROOT`; its containers are removed with this value.
#[derive(Debug)]
pub struct Bale {
    exe: PathBuf,
    scratch: Scratch,
}

impl Bale {
    /// Makes an empty store for the binary `exe`; see the macro `bale!`.
    #[must_use]
    pub fn new(exe: impl Into<PathBuf>) -> Self {
        Self { exe: exe.into(), scratch: Scratch::new("root") }
    }

    /// Returns the binary.
    #[must_use]
    pub fn exe(&self) -> &Path {
        &self.exe
    }

    /// Returns the store (`BALE_ROOT`).
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.scratch.join("bale")
    }

    /// Returns the scratch folder around the store; bundles and archives of the test fit there.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.scratch.path()
    }

    /// Prepares a run: a known environment, nothing on standard input, working directory [`Bale::dir`].
    #[must_use]
    pub fn command<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = Command::new(&self.exe);
        command.args(arguments).env_clear().current_dir(self.dir()).stdin(Stdio::null());
        for name in ["PATH", "HOME", "BALE_TEST_UNPRIVILEGED"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.env("BALE_ROOT", self.root()).env("LC_ALL", "C.UTF-8");
        command
    }

    /// Runs the binary to its end.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Outcome {
        finish(&mut self.command(arguments))
    }

    /// Runs the binary with `input` on its standard input.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn run_with_input<A: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
        input: &[u8],
    ) -> Outcome {
        let file = self.scratch.join("stdin");
        std::fs::write(&file, input).expect("write standard input");
        let mut command = self.command(arguments);
        command.stdin(std::fs::File::open(&file).expect("open standard input"));
        finish(&mut command)
    }

    /// Runs the binary, wants success, and returns its standard output.
    ///
    /// # Panics
    /// With all that it said, when it fails.
    #[track_caller]
    pub fn ok<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> String {
        let outcome = self.run(arguments);
        assert_eq!(outcome.code, 0, "{outcome:#?}");
        outcome.stdout
    }

    /// Runs the binary, wants exit status `code`, and returns its standard error.
    ///
    /// # Panics
    /// With all that it said, when it ends otherwise.
    #[track_caller]
    pub fn fails<A: AsRef<OsStr>>(&self, code: i32, arguments: impl IntoIterator<Item = A>) -> String {
        let outcome = self.run(arguments);
        assert_eq!(outcome.code, code, "{outcome:#?}");
        outcome.stderr
    }

    /// Loads the busybox image (`busybox:latest`) into the store.
    ///
    /// # Panics
    /// When the package cannot be fetched or `load` fails.
    pub fn load_busybox(&self) {
        let archive = crate::image::busybox();
        self.ok([OsStr::new("load"), OsStr::new("-i"), archive.as_os_str()]);
    }
}

impl Drop for Bale {
    fn drop(&mut self) {
        if !self.root().join("containers").is_dir() {
            return;
        }
        let listed = self.run(["ps", "-aq", "--no-trunc"]);
        let ids: Vec<&str> = listed.stdout.split_whitespace().collect();
        if !ids.is_empty() {
            let removed = self.run(["rm", "-f"].iter().copied().chain(ids));
            // A failing test must show its own failure, so this is told, not thrown.
            if removed.code != 0 {
                let _ = writeln!(std::io::stderr(), "left behind: {removed:#?}");
            }
        }
    }
}

/// Runs a command to its end.
///
/// # Panics
/// When it cannot be started.
pub fn finish(command: &mut Command) -> Outcome {
    use std::os::unix::process::ExitStatusExt as _;
    let line = shown(command);
    let output = command.output().unwrap_or_else(|e| panic!("{line}: {e}"));
    let signalled = || output.status.signal().map_or(-1, |signal| 128 + signal);
    Outcome {
        code: output.status.code().unwrap_or_else(signalled),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        line,
    }
}

/// Waits for a child's end; after `limit` it is killed.
///
/// # Errors
/// Those of `pidfd_open`, `poll` and `wait`.
pub fn wait_at_most(child: &mut Child, limit: Duration) -> io::Result<ExitStatus> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::other("strange pid"))?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    let limit = Timespec { tv_sec: limit.as_secs().cast_signed(), tv_nsec: i64::from(limit.subsec_nanos()) };
    if poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit))? == 0 {
        child.kill()?;
    }
    child.wait()
}

/// Returns a command line as a user would type it.
#[must_use]
pub fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| quoted(&word.to_string_lossy())).collect::<Vec<_>>().join(" ")
}

/// Returns a word as it must stand in a shell's command line.
#[must_use]
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,{}".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn words_are_quoted_only_where_a_shell_wants_it() {
        let cases = [("a=b", "a=b"), ("", "''"), ("two words", "'two words'"), ("it's", r"'it'\''s'")];
        for (word, want) in cases {
            assert_eq!(super::quoted(word), want);
        }
    }
}
