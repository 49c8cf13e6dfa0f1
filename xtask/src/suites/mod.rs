//! `cargo xtask suites DIR`: test suites of others, ready-built in DIR, against `bale` and the other runtimes.
//!
//! Each program runs alone: in the tree of Debian packages that the benches use ("peers"), in mount, pid and cgroup
//! namespaces of its own, with a time limit. What it leaves behind goes with them; its cgroups are removed here.

mod inside;
mod outcome;
mod table;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use bale_testkit::output_of;

use self::inside::Layout;
use self::outcome::Outcome;
use self::table::Table;
use crate::cargo::{self, Profile};
use crate::run::{Failure, Result, Runner, fail};
use crate::{apt, bench, say};

const USAGE: &str = "\
usage: cargo xtask suites DIR [--with BINARY] [--runtime NAME=PATH]... [--on v1|v2] [--only TEXT]

Runs what it finds ready-built in DIR against bale and, in the tree of the peers, runc and crun (and youki where the
tree has it); prints a table for each layout of cgroups. Needs root. Fails when bale is worse than the best of the
others in any program, except where it differs on purpose.

  DIR/validation/NAME/NAME.t        runtime-tools' validation programs, with runtimetest and
                                    rootfs-amd64.tar.gz in DIR/validation
  DIR/contest/contest               youki's contest, with runtimetest and bundle.tar.gz beside it

  --with BINARY                     this bale, not the one that is built now
  --runtime NAME=PATH               one more runtime; youki is called what contest calls it, others are for it runc
  --on v1|v2                        only with this layout of cgroups; v1 is the host's, where it has that
  --only TEXT                       only programs with TEXT in their names";

/// One program of a suite: a validation program, or a group of contest's tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    suite: &'static str,
    name: String,
}

/// One runtime, and where it is inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runtime {
    name: String,
    path: String,
}

/// What was asked for.
#[derive(Debug)]
struct Request {
    dir: PathBuf,
    with: Option<PathBuf>,
    runtimes: Vec<(String, PathBuf)>,
    layout: Option<Layout>,
    only: String,
}

/// How often a program runs that fails where another runtime passes: some depend on who is first.
const TRIES: u32 = 3;

/// What `cargo xtask suites` does.
pub fn main(words: &[&str]) -> Result<()> {
    if words.is_empty() || words.contains(&"--help") || words.contains(&"-h") {
        say(USAGE);
        return Ok(());
    }
    let request = Request::read(words)?;
    let tree = bench::peers_tree()?;
    let work = cargo::target().join("suites");
    let mut runner = Runner::new(&work.join("output"))?;
    let runtimes = prepare(&request, &tree, &work, &mut runner)?;
    let programs = find(&request.dir, &request.only)?;
    let layouts: Vec<Layout> = match request.layout {
        Some(layout) => vec![layout],
        None => [Layout::V2, Layout::V1].into_iter().filter(|layout| layout.is_here()).collect(),
    };
    let mut worse = 0;
    for layout in layouts {
        let place =
            inside::Place { tree: tree.clone(), dir: request.dir.clone(), work: work.clone(), layout };
        let table = run_all(&place, &programs, &runtimes, &mut runner)?;
        table.print(&place, &runtimes)?;
        worse += table.worse();
    }
    if worse == 0 { Ok(()) } else { fail(format!("bale is worse than another runtime in {worse} programs")) }
}

impl Request {
    fn read(words: &[&str]) -> Result<Self> {
        let [dir, options @ ..] = words else { return fail(USAGE) };
        let mut request = Self {
            dir: Path::new(dir).canonicalize().map_err(|e| Failure::Words(format!("{dir}: {e}")))?,
            with: None,
            runtimes: Vec::new(),
            layout: None,
            only: String::new(),
        };
        for option in options.chunks(2) {
            match option {
                ["--with", binary] => request.with = Some(Path::new(binary).canonicalize()?),
                ["--runtime", pair] => {
                    let Some((name, path)) = pair.split_once('=') else { return fail(USAGE) };
                    let path = Path::new(path).canonicalize();
                    request
                        .runtimes
                        .push((name.to_owned(), path.map_err(|e| Failure::Words(format!("{pair}: {e}")))?));
                }
                ["--on", "v1"] => request.layout = Some(Layout::V1),
                ["--on", "v2"] => request.layout = Some(Layout::V2),
                ["--only", text] => (*text).clone_into(&mut request.only),
                _ => return fail(USAGE),
            }
        }
        Ok(request)
    }
}

/// Builds bale, puts the runtimes that are not in the tree into a folder, and lists all, bale first.
fn prepare(request: &Request, tree: &Path, work: &Path, runner: &mut Runner) -> Result<Vec<Runtime>> {
    let bale = match &request.with {
        Some(binary) => binary.clone(),
        None => {
            apt::ensure(runner, apt::BUILD)?;
            cargo::build_bale(runner, Profile::Release)?
        }
    };
    let bin = work.join("bin");
    let _ = fs::remove_dir_all(&bin);
    fs::create_dir_all(&bin)?;
    let mut runtimes = vec![Runtime { name: "bale".to_owned(), path: inside::binary("bale-runc") }];
    fs::copy(bale, bin.join("bale-runc"))?;
    for name in ["runc", "crun", "youki"] {
        if tree.join("usr/bin").join(name).is_file() {
            runtimes.push(Runtime { name: name.to_owned(), path: format!("/usr/bin/{name}") });
        }
    }
    for (name, path) in &request.runtimes {
        fs::copy(path, bin.join(name))?;
        runtimes.retain(|runtime| runtime.name != *name);
        runtimes.push(Runtime { name: name.clone(), path: inside::binary(name) });
    }
    Ok(runtimes)
}

/// Finds the programs whose names contain `only`, in order.
fn find(dir: &Path, only: &str) -> Result<Vec<Program>> {
    let mut programs = Vec::new();
    let validation = dir.join("validation");
    for entry in fs::read_dir(&validation).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().join(format!("{name}.t")).is_file() {
            programs.push(Program { suite: "validation", name });
        }
    }
    let contest = dir.join("contest");
    if contest.join("contest").is_file() {
        // It wants its bundle in the working directory, even to list.
        let groups = output_of(Command::new("./contest").arg("list").current_dir(&contest))?;
        let groups = String::from_utf8_lossy(&groups).into_owned();
        programs
            .extend(groups.lines().map(|name| Program { suite: "contest", name: name.trim().to_owned() }));
    }
    programs.retain(|program| !program.name.is_empty() && program.name.contains(only));
    programs.sort_by(|a, b| (b.suite, &a.name).cmp(&(a.suite, &b.name)));
    if programs.is_empty() {
        return fail(format!("there is no program in {}; what is looked for:\n\n{USAGE}", dir.display()));
    }
    Ok(programs)
}

/// Runs every program with every runtime.
fn run_all(
    place: &inside::Place,
    programs: &[Program],
    runtimes: &[Runtime],
    runner: &mut Runner,
) -> Result<Table> {
    say(&format!(
        "\ncgroup {}: {} programs, {} runtimes",
        place.layout.name(),
        programs.len(),
        runtimes.len()
    ));
    let logs = place.work.join("logs").join(place.layout.name());
    fs::create_dir_all(&logs)?;
    let mut table = Table::default();
    for program in programs {
        let mut outcomes = Vec::new();
        for runtime in runtimes {
            outcomes.push(run_one(place, program, runtime, runner, &logs)?);
        }
        // A program that only this runtime fails may have lost a race.
        let some = outcomes.iter().any(Outcome::is_good);
        for (runtime, outcome) in runtimes.iter().zip(&mut outcomes) {
            while some && !outcome.is_good() && outcome.tries < TRIES {
                let again = run_one(place, program, runtime, runner, &logs)?;
                *outcome = Outcome { tries: outcome.tries + 1, ..outcome.better(again) };
            }
        }
        let cells: Vec<String> =
            runtimes.iter().zip(&outcomes).map(|(r, o)| format!("{} {}", r.name, o.cell())).collect();
        say(&format!("  {:<11} {:<36} {}", program.suite, program.name, cells.join(" | ")));
        table.add(program.clone(), outcomes);
    }
    Ok(table)
}

/// Runs a program once; what it said stays in a file.
fn run_one(
    place: &inside::Place,
    program: &Program,
    runtime: &Runtime,
    runner: &mut Runner,
    logs: &Path,
) -> Result<Outcome> {
    let groups = inside::make_cgroups(place.layout)?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["@suite", "join"]).args(place.words()).args(inside::program_words(program, runtime));
    let ran = runner.run(&mut command);
    inside::remove_cgroups(&groups, runner)?;
    let ran = ran?;
    let said = format!("{}{}", ran.stdout, ran.stderr);
    fs::write(logs.join(format!("{}.{}.{}", program.suite, program.name, runtime.name)), &said)?;
    Ok(Outcome::read(program.suite, &ran.stdout, ran.code))
}

/// The part that runs in namespaces of its own.
pub fn main_inside(words: &[&str]) -> Result<()> {
    inside::main(words)
}

/// Makes a link, whatever was there.
fn link(to: &str, at: &Path) -> Result<()> {
    let _ = fs::remove_file(at);
    Ok(symlink(to, at)?)
}
