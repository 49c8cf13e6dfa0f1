//! Where the time goes: the stages that `--timings` prints, beside those of the floor.

use std::path::Path;
use std::process::Command;

use super::super::inside::CGROUP;
use super::super::measure::{Samples, Table, time, time_and_errors};
use super::{Contender, Field, await_end, bundle, floor, open_init};
use crate::run::Result;
use crate::say;

/// What passes before the first stage and after the last: the two execs, the C library's start, the process's end.
const OUTSIDE: &str = "exec, seal, start of the program, its end";

/// Medians by stage, in microseconds, in the order of the first command.
#[derive(Debug, Default)]
struct Stages(Vec<(String, Samples)>);

impl Stages {
    /// Adds the stages of a command that printed them, and what of its time was outside of them.
    fn add(&mut self, command: &mut Command) -> Result<()> {
        let (took, words) = time_and_errors(command)?;
        let mut repeated: Vec<&str> = Vec::new();
        let mut inside = 0.0;
        for line in words.lines().filter_map(|line| line.strip_prefix("timings: ")) {
            let Some((name, micros)) = parse(line) else { continue };
            if name == "total" {
                inside = micros;
                continue;
            }
            repeated.push(name);
            let times = repeated.iter().filter(|known| **known == name).count();
            let name = if times > 1 { format!("{name} ({times})") } else { name.to_owned() };
            self.of(&name).add(micros);
        }
        self.of(OUTSIDE).add(took.as_secs_f64() * 1e6 - inside);
        Ok(())
    }

    fn of(&mut self, name: &str) -> &mut Samples {
        let at = self.0.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
            self.0.push((name.to_owned(), Samples::default()));
            self.0.len() - 1
        });
        &mut self.0[at].1
    }

    fn median(&self, name: &str) -> Option<f64> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, samples)| samples.median())
    }
}

/// Reads a line of `--timings` without its first word: a name, a number, `us`.
fn parse(line: &str) -> Option<(&str, f64)> {
    let (name, micros) = line.trim_end().strip_suffix(" us")?.rsplit_once(' ')?;
    Some((name.trim_end(), micros.parse().ok()?))
}

/// Prints the stages of every command of a container's life.
pub fn print(field: &Field, rounds: usize) -> Result<()> {
    let bale = Contender { timings: true, ..field.bale().clone() };
    let [run, once] = ["stages-run", "stages"].map(|id| bundle(id, "/bin/true", &|_| ()));
    let (run, once, stays) = (run?, once?, bundle("stages-stay", "/bin/stay", &|_| ())?);
    let mut of = [(); 6].map(|()| Stages::default());
    time(&mut field.bale().run_detached(&stays, "stages-stay"))?;
    for _ in 0..rounds {
        let [floors, runs, creates, starts, deletes, execs] = &mut of;
        floors.add(floor(Path::new(CGROUP)).env("FLOOR_TIMINGS", "1"))?;
        runs.add(&mut bale.run(&run, "stages-run"))?;
        creates.add(&mut bale.create(&once, "stages"))?;
        let init = open_init("stages")?;
        starts.add(&mut bale.start("stages"))?;
        await_end(&init, "stages")?;
        deletes.add(&mut bale.delete("stages"))?;
        execs.add(&mut bale.exec("stages-stay"))?;
    }
    field.bale().remove("stages-stay")?;
    let [floors, runs, creates, starts, deletes, execs] = of;
    let mut table = Table::new(&["run true: stage, in us", "bale", "floor -s"]);
    let shown = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.0}"));
    for (name, samples) in &runs.0 {
        table.row(vec![name.clone(), format!("{:.0}", samples.median()), shown(floors.median(name))]);
    }
    for (name, samples) in floors.0.iter().filter(|(name, _)| runs.median(name).is_none()) {
        table.row(vec![name.clone(), "-".to_owned(), format!("{:.0}", samples.median())]);
    }
    say("\nStages of (init) pass beside those of the process that made it.");
    table.print();
    for (name, stages) in [("create", creates), ("start", starts), ("delete", deletes), ("exec true", execs)]
    {
        let mut table = Table::new(&[&format!("{name}: stage, in us"), "bale"]);
        for (name, samples) in &stages.0 {
            table.row(vec![name.clone(), format!("{:.0}", samples.median())]);
        }
        say("");
        table.print();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_line_of_timings_is_read() {
        assert_eq!(
            parse("(init) mounts, until it has its root      412 us"),
            Some(("(init) mounts, until it has its root", 412.0))
        );
        assert_eq!(parse("nothing"), None);
    }
}
