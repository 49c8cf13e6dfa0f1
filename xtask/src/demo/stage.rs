//! The place where the demo happens: its folder, its environment, and how each step is shown.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use bale_testkit::command::quoted;
use bale_testkit::scratch::remove_tree;

use super::registry::Registry;
use crate::run::{Ran, Result, Runner};
use crate::say;

/// Lines of a command's output that are shown; the rest is counted.
const SHOWN_LINES: usize = 14;

/// The demo's folder and what runs in it.
#[derive(Debug)]
pub struct Stage {
    /// Runs the commands.
    pub runner: Runner,
    /// The registry, while it runs.
    pub registry: Option<Registry>,
    dir: PathBuf,
    number: u32,
}

impl Stage {
    /// Prepares the folder `dir` for the binary `bale`.
    pub fn open(runner: Runner, dir: &Path, bale: &Path) -> Result<Self> {
        for name in ["bin", "cache"] {
            fs::create_dir_all(dir.join(name))?;
        }
        let link = dir.join("bin/bale");
        let _ = fs::remove_file(&link);
        std::os::unix::fs::symlink(bale, &link)?;
        Ok(Self { runner, registry: None, dir: dir.to_owned(), number: 0 })
    }

    /// Returns the path of `name` in the demo's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Returns the folder of what is kept for the next run.
    pub fn cache(&self) -> PathBuf {
        self.path("cache")
    }

    /// Returns the folder in which the commands are called.
    pub fn work(&self) -> PathBuf {
        self.path("work")
    }

    /// Removes what a run that was killed has left, and begins with empty folders.
    pub fn remove_leftovers(&mut self) -> Result<()> {
        if self.path("bale").exists() || self.path("registry.pid").exists() {
            say("an earlier demo was cut off: cleaning up after it");
            self.clean_up()?;
        }
        fs::create_dir_all(self.work())?;
        Ok(())
    }

    /// Ends and removes everything but the cache. Never gives up half-way: the first failure is returned at the end.
    pub fn clean_up(&mut self) -> Result<()> {
        // From here on no signal interrupts: a second Ctrl-C must not leave half of it.
        let _ = self.runner.check();
        let containers = self.remove_containers();
        let registry = Registry::stop(self.registry.take(), &self.path("registry.pid"));
        let trees =
            ["bale", "registry", "work"].map(|name| remove_tree(&self.path(name)).map_err(Into::into));
        containers.and(registry).and(trees.into_iter().collect())
    }

    fn remove_containers(&mut self) -> Result<()> {
        if !self.path("bale/containers").is_dir() {
            return Ok(());
        }
        let mut list = self.command("bale", &["ps", "-aq"]);
        let listed = self.runner.run(&mut list)?.success()?;
        let mut words = vec!["rm", "-f"];
        words.extend(listed.stdout.split_whitespace());
        if words.len() > 2 {
            let mut remove = self.command("bale", &words);
            self.runner.run(&mut remove)?.success()?;
        }
        Ok(())
    }

    /// Prepares a command in the demo's environment: its own `bale` and tools first in `PATH`, its own store.
    pub fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let own = self.path("bin");
        let found = own.join(program);
        let mut command = Command::new(if found.exists() { found.as_os_str() } else { program.as_ref() });
        let mut path = OsString::from(own);
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        command.args(arguments).env("PATH", path).env("BALE_ROOT", self.path("bale"));
        if self.work().is_dir() {
            command.current_dir(self.work());
        }
        command
    }

    /// Prints the title of a part of the demo.
    pub fn title(&mut self, words: &str) {
        self.number += 1;
        say(&format!("\n{}. {words}", self.number));
    }

    /// Prints a remark.
    pub fn remark(&self, words: &str) {
        say(&format!("  {words}"));
    }

    /// Does something that is not a command, and prints what and how long.
    pub fn timed<T>(&mut self, words: &str, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let began = Instant::now();
        let done = work(self)?;
        say(&format!("  {words}: {}", seconds(began.elapsed())));
        self.runner.check()?;
        Ok(done)
    }

    /// Shows a command, runs it, shows its result and time, and wants success.
    pub fn run(&mut self, program: &str, arguments: &[&str]) -> Result<Ran> {
        self.look(program, arguments)?.success()
    }

    /// Shows a command, runs it, and shows its result and time, whatever its exit status.
    pub fn look(&mut self, program: &str, arguments: &[&str]) -> Result<Ran> {
        let words: Vec<String> = arguments.iter().map(|word| quoted(word)).collect();
        say(&format!("  $ {program} {}", words.join(" ")));
        let mut command = self.command(program, arguments);
        let ran = self.runner.run(&mut command)?;
        show(&ran);
        Ok(ran)
    }

    /// Shows and runs `bale`.
    pub fn bale(&mut self, arguments: &[&str]) -> Result<Ran> {
        self.run("bale", arguments)
    }
}

/// Prints what a command said, and its time.
fn show(ran: &Ran) {
    let said: Vec<&str> = ran.stderr.lines().chain(ran.stdout.lines()).collect();
    let hidden = said.len().saturating_sub(SHOWN_LINES);
    for line in said.iter().take(SHOWN_LINES) {
        say(&format!("    {line}"));
    }
    if hidden > 0 {
        say(&format!("    … and {hidden} more lines"));
    }
    let result = if ran.code == 0 { "ok".to_owned() } else { format!("exit status {}", ran.code) };
    say(&format!("    [{result}, {}]", seconds(ran.took)));
}

fn seconds(time: Duration) -> String {
    format!("{:.3} s", time.as_secs_f64())
}
