//! The life of a container, measured.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use super::super::inside::{CGROUP, OWN};
use super::super::measure::{Table, time, time_and_errors, verdict};
use super::{Contender, Field, Row, await_end, bundle, docker_filter, floor, open_init, time_all};
use crate::run::Result;
use crate::say;

const FLOOR: &str = "floor -s";
/// How many at once, and how many that are there already.
const AT_ONCE: usize = 32;
const MANY: usize = 500;

/// What was measured of one contender or of all, by step.
#[derive(Debug, Default)]
pub struct Steps {
    run: Row,
    filtered: Row,
    create: Row,
    start: Row,
    delete: Row,
    all: Row,
    exec: Row,
}

impl Steps {
    fn named(&self) -> [(&'static str, &Row); 7] {
        [
            ("run true", &self.run),
            ("run true, Docker's filter", &self.filtered),
            ("create", &self.create),
            ("start", &self.start),
            ("delete", &self.delete),
            ("create + start + delete", &self.all),
            ("exec true", &self.exec),
        ]
    }

    fn print(&self, who: &[&'static str]) {
        let mut table = Table::new(&[&[""], who].concat());
        for (name, row) in self.named() {
            table.row(std::iter::once(name.to_owned()).chain(who.iter().map(|who| row.shown(who))).collect());
        }
        table.print();
    }
}

/// Measures every step of every contender, alone on the machine.
pub fn measure(field: &Field, rounds: usize) -> Result<Steps> {
    let contenders: Vec<&Contender> = field.contenders.iter().collect();
    let steps = steps(&contenders, Path::new(CGROUP), rounds)?;
    steps.print(&names(&contenders));
    verdict("run against crun", steps.run.ratio("bale", "crun"), 0.5, "x crun");
    verdict("run against the floor", steps.run.ratio("bale", FLOOR), 1.3, "x floor");
    verdict("run with Docker's filter", steps.filtered.ratio("bale", "crun"), 0.5, "x crun");
    verdict("create + start + delete", steps.all.ratio("bale", "crun"), 0.4, "x crun");
    verdict("exec", steps.exec.ratio("bale", "crun"), 0.5, "x crun");
    Ok(steps)
}

/// Measures every step of contenders that can work on cgroup v1; the floor makes its cgroup below `unified`, as it is
/// born there.
pub fn measure_on_v1(contenders: &[&Contender], unified: &Path, rounds: usize) -> Result<()> {
    let steps = steps(contenders, unified, rounds)?;
    steps.print(&names(contenders));
    verdict("run against runc", steps.run.ratio("bale", "runc"), 0.5, "x runc");
    verdict("create + start + delete against runc", steps.all.ratio("bale", "runc"), 0.4, "x runc");
    verdict("exec against runc", steps.exec.ratio("bale", "runc"), 0.5, "x runc");
    Ok(())
}

fn names(contenders: &[&Contender]) -> Vec<&'static str> {
    std::iter::once(FLOOR).chain(contenders.iter().map(|who| who.name)).collect()
}

/// A contender with its bundles and a container that stays.
struct Player<'a> {
    who: &'a Contender,
    run: std::path::PathBuf,
    filtered: std::path::PathBuf,
    steps: std::path::PathBuf,
    stays: String,
}

fn players<'a>(contenders: &[&'a Contender]) -> Result<Vec<Player<'a>>> {
    let filter = docker_filter()?;
    let player = |who: &&'a Contender| {
        let name = who.name;
        let stays = format!("stay-{name}");
        time(&mut who.run_detached(&bundle(&stays, "/bin/stay", &|_| ())?, &stays))?;
        Ok(Player {
            who,
            run: bundle(&format!("run-{name}"), "/bin/true", &|_| ())?,
            filtered: bundle(&format!("filter-{name}"), "/bin/true", &|config| {
                config["linux"]["seccomp"] = filter.clone();
            })?,
            steps: bundle(&format!("steps-{name}"), "/bin/true", &|_| ())?,
            stays,
        })
    };
    contenders.iter().map(player).collect()
}

/// Measures all steps, in turns; the first round warms the caches and does not count.
fn steps(contenders: &[&Contender], cgroup: &Path, rounds: usize) -> Result<Steps> {
    let players = players(contenders)?;
    let mut steps = Steps::default();
    for round in 0..=rounds {
        let mut now = Steps::default();
        now.run.add(FLOOR, time(&mut floor(cgroup))?);
        for player in &players {
            let (who, name) = (player.who, player.who.name);
            now.run.add(name, time(&mut who.run(&player.run, &format!("run-{name}")))?);
        }
        for player in &players {
            let (who, name) = (player.who, player.who.name);
            now.filtered.add(name, time(&mut who.run(&player.filtered, &format!("filter-{name}")))?);
        }
        for player in &players {
            whole_life(player, &mut now)?;
        }
        for player in &players {
            now.exec.add(player.who.name, time(&mut player.who.exec(&player.stays))?);
        }
        if round > 0 {
            steps.append(&now);
        }
    }
    players.iter().try_for_each(|player| player.who.remove(&player.stays))?;
    Ok(steps)
}

/// `create`, `start` and `delete`, each a command; the wait for the program's end does not count.
fn whole_life(player: &Player<'_>, now: &mut Steps) -> Result<()> {
    let (who, name) = (player.who, player.who.name);
    let id = format!("steps-{name}");
    let created = time(&mut who.create(&player.steps, &id))?;
    let init = open_init(&id)?;
    let started = time(&mut who.start(&id))?;
    await_end(&init, &id)?;
    let deleted = time(&mut who.delete(&id))?;
    now.create.add(name, created);
    now.start.add(name, started);
    now.delete.add(name, deleted);
    now.all.add(name, created + started + deleted);
    Ok(())
}

impl Steps {
    fn append(&mut self, other: &Self) {
        let own = [
            &mut self.run,
            &mut self.filtered,
            &mut self.create,
            &mut self.start,
            &mut self.delete,
            &mut self.all,
            &mut self.exec,
        ];
        for (own, (_, other)) in own.into_iter().zip(other.named()) {
            own.append(other);
        }
    }
}

/// `run` of many at once, against as many floors.
pub fn at_once(field: &Field, rounds: usize, alone: &Steps) -> Result<()> {
    let mut bundles = Vec::new();
    for who in &field.contenders {
        let make = |at| bundle(&format!("once-{}-{at}", who.name), "/bin/true", &|_| ());
        bundles.push((0..AT_ONCE).map(make).collect::<Result<Vec<_>>>()?);
    }
    let mut row = Row::default();
    for round in 0..=rounds {
        let mut now = Row::default();
        now.add(FLOOR, time_all(&mut (0..AT_ONCE).map(|_| floor(Path::new(CGROUP))).collect::<Vec<_>>())?);
        for (who, bundles) in field.contenders.iter().zip(&bundles) {
            let command = |(at, bundle): (usize, &std::path::PathBuf)| who.run(bundle, &format!("once-{at}"));
            let mut commands: Vec<Command> = bundles.iter().enumerate().map(command).collect();
            now.add(who.name, time_all(&mut commands)?);
        }
        if round > 0 {
            row.append(&now);
        }
    }
    say(&format!("\n{AT_ONCE} at once, until the last has ended, in ms"));
    row.print();
    let grown = row.ratio("bale", FLOOR) / alone.run.ratio("bale", FLOOR);
    verdict("(bale at once / floor at once) / (bale alone / floor alone)", grown, 1.5, "");
    Ok(())
}

/// The same steps with many containers there already: the ratio to the floor may not grow by more than a half.
pub fn beside_many(field: &Field, rounds: usize, alone: &Steps) -> Result<()> {
    let bale = field.bale();
    let bundle = bundle("many", "/bin/stay", &|_| ())?;
    let text = fs::read_to_string(bundle.join("config.json"))?;
    let mut config: serde_json::Value = serde_json::from_str(&text)?;
    for at in 0..MANY {
        config["linux"]["cgroupsPath"] = json!(format!("/bale-bench/many-{at}"));
        fs::write(bundle.join("config.json"), config.to_string())?;
        time(&mut bale.run_detached(&bundle, &format!("many-{at}")))?;
    }
    let then = steps(&[bale], Path::new(CGROUP), rounds);
    for at in 0..MANY {
        bale.remove(&format!("many-{at}"))?;
    }
    let then = then?;
    say(&format!("\nwith {MANY} containers there already, in ms"));
    then.print(&[FLOOR, "bale"]);
    let floors = then.run.median(FLOOR) / alone.run.median(FLOOR);
    for ((name, then), (_, alone)) in then.named().into_iter().zip(alone.named()) {
        let grown = then.median("bale") / alone.median("bale") / floors;
        verdict(&format!("{name}, (bale then / floor then) / (bale alone / floor alone)"), grown, 1.5, "");
    }
    Ok(())
}

/// The most memory that `create` ever has, in KiB.
pub fn memory(field: &Field) -> Result<()> {
    let mut table = Table::new(&["", "peak memory of create, KiB"]);
    let mut peaks = Vec::new();
    for who in &field.contenders {
        let id = format!("peak-{}", who.name);
        let create = who.create(&bundle(&id, "/bin/stay", &|_| ())?, &id);
        let mut command = Command::new(Path::new(OWN).join("bin/peak"));
        command.arg(create.get_program()).args(create.get_args());
        let (_, words) = time_and_errors(&mut command)?;
        let peak: f64 = words.trim().parse().unwrap_or(f64::NAN);
        who.remove(&id)?;
        table.row(vec![who.name.to_owned(), format!("{peak:.0}")]);
        peaks.push((who.name, peak));
    }
    say("");
    table.print();
    let of = |name: &str| peaks.iter().find(|(who, _)| *who == name).map_or(f64::NAN, |(_, peak)| *peak);
    verdict("peak memory of create against crun", of("bale") / of("crun"), 1.0, "x crun");
    Ok(())
}
