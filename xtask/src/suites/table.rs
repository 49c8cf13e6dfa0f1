//! The table of programs and runtimes, and where bale differs on purpose.

use std::process::Command;

use bale_testkit::output_of;

use super::inside::Place;
use super::outcome::Outcome;
use super::{Program, Runtime};
use crate::run::Result;
use crate::say;

/// A program in which bale may be behind, by how many cases at most, and why.
struct Difference {
    suite: &'static str,
    program: &'static str,
    cases: u32,
    why: &'static str,
}

const fn difference(suite: &'static str, program: &'static str, cases: u32, why: &'static str) -> Difference {
    Difference { suite, program, cases, why }
}

const CHECKPOINT: &str = "checkpoint and restore are not done (SCOPE.md)";

const DIFFERENCES: &[Difference] = &[
    difference(
        "validation",
        "linux_process_apparmor_profile",
        309,
        "the kernel has no AppArmor: bale, as runc, starts nothing without the confinement that was asked for",
    ),
    difference(
        "validation",
        "mounts",
        8,
        "binds are cloned before the container has a mount namespace, so that no path is looked up in it; since Linux \
         6.8 mountinfo lists by the age of a mount, not by the order of mounting, which is the config's",
    ),
    difference(
        "validation",
        "killsig",
        2,
        "a race: the signal comes right after start, and a shell that is process 1 loses one that it has no trap for yet",
    ),
    difference(
        "validation",
        "start",
        1,
        "the program wants success of a start without a process; the specification wants an error, which create gives",
    ),
    difference(
        "validation",
        "process_capabilities_fail",
        1,
        "an unknown capability is told and left out (runtime-spec since 1.1, runc, crun); the program wants a failure",
    ),
    difference(
        "contest",
        "cgroup_v1_pids",
        1,
        "a pids limit of 0 is a limit (runtime-spec 1.3, runc since 1.4), not the absence of one",
    ),
    difference(
        "contest",
        "fd_control",
        1,
        "--preserve-fds is refused when one of the descriptors is not open, as runc does; there the third is not",
    ),
    difference(
        "contest",
        "poststop_fail",
        1,
        "the test wants that no poststop hook runs after one that failed; the specification wants all to run",
    ),
    difference(
        "contest",
        "hooks",
        1,
        "a startContainer hook that fails is told by start, and no poststart hook runs (runtime-spec, Lifecycle 7)",
    ),
    difference("contest", "checkpoint_restore", 14, CHECKPOINT),
    difference("contest", "lifecycle", 7, CHECKPOINT),
];

/// All outcomes: bale's first.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<(Program, Vec<Outcome>)>,
}

/// How bale stands in one program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Fine,
    OnPurpose(&'static str),
    Worse,
}

impl Table {
    /// Adds a program.
    pub fn add(&mut self, program: Program, outcomes: Vec<Outcome>) {
        self.rows.push((program, outcomes));
    }

    /// Counts the programs in which bale is worse than the best of the others, and not on purpose.
    pub fn worse(&self) -> usize {
        self.rows.iter().filter(|(program, outcomes)| standing(program, outcomes) == Standing::Worse).count()
    }

    /// Prints it, as Markdown.
    pub fn print(&self, place: &Place, runtimes: &[Runtime]) -> Result<()> {
        say(&format!("\n### cgroup {}\n", place.layout.name()));
        say(&about(place, runtimes)?);
        for suite in ["validation", "contest"] {
            let rows: Vec<_> = self.rows.iter().filter(|(program, _)| program.suite == suite).collect();
            if rows.is_empty() {
                continue;
            }
            let names: Vec<&str> = runtimes.iter().map(|runtime| runtime.name.as_str()).collect();
            say(&format!("\n| {suite} | {} |\n|---|{}", names.join(" | "), "---|".repeat(names.len())));
            for (program, outcomes) in &rows {
                let cells: Vec<String> = outcomes.iter().map(Outcome::cell).collect();
                let mark = match standing(program, outcomes) {
                    Standing::Fine => "",
                    Standing::OnPurpose(_) => " (1)",
                    Standing::Worse => " (worse)",
                };
                say(&format!("| {}{mark} | {} |", program.name, cells.join(" | ")));
            }
            sums(&rows, runtimes.len());
        }
        for (program, outcomes) in &self.rows {
            if let Standing::OnPurpose(why) = standing(program, outcomes) {
                say(&format!("\n(1) {}: {why}.", program.name));
            }
        }
        Ok(())
    }
}

/// The last rows: whole programs, and cases.
fn sums(rows: &[&(Program, Vec<Outcome>)], runtimes: usize) {
    let column = |count: &dyn Fn(&Outcome) -> u32| -> Vec<String> {
        (0..runtimes).map(|at| rows.iter().map(|(_, o)| count(&o[at])).sum::<u32>().to_string()).collect()
    };
    // A group that the suite left out whole has shown nothing.
    let whole = |o: &Outcome| u32::from(o.is_good() && (o.passed > 0 || o.skipped == 0));
    say(&format!("| **programs that pass, of {}** | {} |", rows.len(), column(&whole).join(" | ")));
    say(&format!("| **cases that pass** | {} |", column(&|o| o.passed).join(" | ")));
    say(&format!("| **cases that fail** | {} |", column(&|o| o.failed).join(" | ")));
}

fn standing(program: &Program, outcomes: &[Outcome]) -> Standing {
    let [ours, others @ ..] = outcomes else { return Standing::Fine };
    let behind = others.iter().map(|other| ours.behind(other)).max().unwrap_or(0);
    if behind == 0 {
        return Standing::Fine;
    }
    let known = DIFFERENCES.iter().find(|d| (d.suite, d.program) == (program.suite, program.name.as_str()));
    match known {
        Some(difference) if behind <= difference.cases => Standing::OnPurpose(difference.why),
        _ => Standing::Worse,
    }
}

/// Date, kernel and versions.
fn about(place: &Place, runtimes: &[Runtime]) -> Result<String> {
    let word = |command: &mut Command| -> Result<String> {
        Ok(String::from_utf8_lossy(&output_of(command)?).lines().next().unwrap_or_default().to_owned())
    };
    let mut text = word(Command::new("date").args(["-u", "+%-d %B %Y"]))?;
    text.push_str(&format!(", Linux {}", word(Command::new("uname").arg("-r"))?));
    for runtime in runtimes {
        let path = place.on_host(&runtime.path);
        let mut command = if path.starts_with(&place.work) {
            Command::new(path)
        } else {
            // crun runs from a copy of itself, which it finds in /proc.
            let proc = format!("--mount-proc={}", place.tree.join("proc").display());
            let mut command = Command::new("unshare");
            command.args(["--mount", "--pid", "--fork", &proc, "chroot"]).arg(&place.tree).arg(&runtime.path);
            command
        };
        let version = word(command.arg("--version"))?;
        let version = version.split_whitespace().last().unwrap_or_default();
        text.push_str(&format!(", {} {version}", runtime.name));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_on_purpose_has_a_measure() {
        let of = |passed, failed| Outcome { passed, failed, tries: 1, ..Outcome::default() };
        let program = |name: &str| Program { suite: "validation", name: name.to_owned() };
        assert_eq!(standing(&program("state"), &[of(3, 0), of(2, 1)]), Standing::Fine);
        assert_eq!(standing(&program("state"), &[of(2, 1), of(3, 0)]), Standing::Worse);
        assert!(matches!(standing(&program("mounts"), &[of(312, 8), of(320, 0)]), Standing::OnPurpose(_)));
        assert_eq!(standing(&program("mounts"), &[of(311, 9), of(320, 0)]), Standing::Worse);
    }
}
