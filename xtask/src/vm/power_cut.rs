//! `cargo xtask vm power-cut`: the machine is killed at several moments of a `bale load` into a store on a disk of its
//! own, and started again. Then the image is absent, or every byte of it is right; or bale refuses it and says so. Loaded
//! again, it is right.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bale_testkit::command::quoted;
use bale_testkit::image::{Layout, busybox_rootfs, cached};
use bale_testkit::{Scratch, output_of};

use super::machine::{Ends, Machine};
use super::{Image, dir};
use crate::cargo::{Profile, build_bale};
use crate::run::{Failure, Result, Runner, fail};
use crate::say;

const SCRIPT: &str = include_str!("guest/power_cut.sh");
const NAME: &str = "docker.io/library/power-cut:latest";
/// Seconds after which a layer becomes durable (bale's own rule is 60), with some to spare.
const AGE: u32 = 65;
const DISK_BYTES: u64 = 1 << 30;

/// When the machine is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// At a part (in hundredths) of the time that the first load took.
    While(u32),
    /// So many milliseconds after the command said that all is well.
    After(u64),
    /// Once the store says that its layers are durable.
    Durable,
}

const MOMENTS: &[Moment] = &[
    Moment::After(0),
    Moment::While(25),
    Moment::While(50),
    Moment::While(75),
    Moment::While(95),
    // The journal has told the disk the names by then; the content may not have been written yet.
    Moment::After(12_000),
    Moment::Durable,
];

/// What a machine said until it was cut.
#[derive(Debug, Default)]
struct Said {
    lines: Vec<String>,
    /// From the beginning to the end of the load.
    load: Option<Duration>,
}

/// Cuts at every moment, or at those that are asked for: milliseconds after the end of a load.
pub fn run(runner: &mut Runner, image: &Image, words: &[&str]) -> Result<()> {
    let asked: Vec<Moment> = words.iter().filter_map(|word| word.parse().ok()).map(Moment::After).collect();
    if asked.len() != words.len() {
        return fail(format!("vm power-cut takes numbers of milliseconds, not {words:?}"));
    }
    let moments = if asked.is_empty() { MOMENTS } else { &asked };
    let bale = build_bale(runner, Profile::Dev)?;
    let made = made_image()?;
    let disk = dir().join(format!("power-cut-{}.ext4", std::process::id()));
    let outcome = make_disk(runner, &disk).and_then(|()| all(runner, image, (&disk, moments), &bale, &made));
    let _ = fs::remove_file(&disk);
    outcome
}

fn all(
    runner: &mut Runner,
    image: &Image,
    (disk, moments): (&Path, &[Moment]),
    bale: &Path,
    made: &Path,
) -> Result<()> {
    let mut load = Duration::ZERO;
    let mut wrong = Vec::new();
    for at in 0..=moments.len() {
        let (before, moment) = (at.checked_sub(1), moments.get(at).copied());
        let script = script(bale, made, before, moment.map(|moment| (at, moment)));
        let mut machine = Machine::new(image, &dir(), &script, Ends::Output)?;
        machine.add_disk(disk);
        fs::copy(made.join("sums"), machine.folder().join("sums"))?;
        let said = until(machine.start(), moment, load)?;
        runner.check()?;
        load = said.load.unwrap_or(load);
        let reached = said.lines.iter().any(|line| line == "LOADING") || moment.is_none();
        if !reached {
            machine.code()?;
            return fail(format!("the machine did not come to the load: {:?}", said.lines));
        }
        if let Some(before) = before {
            tell(moments[before], &said.lines, &mut wrong);
        }
    }
    if wrong.is_empty() { Ok(()) } else { fail(wrong.join("\n")) }
}

/// Says what the machine found that came after the cut.
fn tell(cut: Moment, lines: &[String], wrong: &mut Vec<String>) {
    let found =
        |word: &str| lines.iter().find_map(|line| line.strip_prefix(word)).unwrap_or("nothing").to_owned();
    let (verdict, again) = (found("VERDICT "), found("AGAIN "));
    let line = format!("cut {}: {verdict}; loaded again: {again}", words(cut));
    say(&line);
    let good = verdict == "absent" || verdict == "right" || verdict.starts_with("refused");
    // What was promised to be durable must be there.
    let good = if cut == Moment::Durable { verdict == "right" } else { good };
    if !good || again != "right" {
        lines.iter().for_each(|line| say(&format!("    {line}")));
        wrong.push(line);
    }
}

fn words(moment: Moment) -> String {
    match moment {
        Moment::While(part) => format!("after {part} % of the load"),
        Moment::After(0) => "when the load had ended".to_owned(),
        Moment::After(ms) => format!("{ms} ms after the load had ended"),
        Moment::Durable => "when the layers were durable".to_owned(),
    }
}

/// Runs a machine until its moment has come, and kills it; without a moment, until it ends.
fn until(command: &mut Command, moment: Option<Moment>, load: Duration) -> Result<Said> {
    let mut child = command.stdout(Stdio::piped()).stdin(Stdio::null()).spawn()?;
    let output = child.stdout.take().ok_or_else(|| Failure::Words("no output".to_owned()))?;
    let mut said = Said::default();
    let mut began = Instant::now();
    for line in BufReader::new(output).lines() {
        let line = line?;
        let mut wait = None;
        match line.as_str() {
            "LOADING" => {
                began = Instant::now();
                if let Some(Moment::While(part)) = moment {
                    wait = Some(load * part / 100);
                }
            }
            "LOADED" => {
                said.load = Some(began.elapsed());
                if let Some(Moment::After(ms)) = moment {
                    wait = Some(Duration::from_millis(ms));
                }
            }
            "DURABLE" if moment == Some(Moment::Durable) => wait = Some(Duration::ZERO),
            _ => {}
        }
        said.lines.push(line);
        if let Some(wait) = wait {
            std::thread::sleep(wait);
            // The process is qemu: those that started it have become it.
            child.kill()?;
            break;
        }
    }
    child.wait()?;
    Ok(said)
}

fn script(bale: &Path, made: &Path, before: Option<usize>, next: Option<(usize, Moment)>) -> String {
    let path = |path: &Path| quoted(&path.display().to_string());
    let number = |number: Option<usize>| number.map(|n| n.to_string()).unwrap_or_default();
    let wait =
        next.filter(|(_, moment)| *moment == Moment::Durable).map(|_| AGE.to_string()).unwrap_or_default();
    format!(
        "BALE={} ARCHIVE={} IMAGE={NAME} BEFORE={} NEXT={} WAIT={wait}\n{SCRIPT}",
        path(bale),
        path(&made.join("image.tar")),
        number(before),
        number(next.map(|(at, _)| at)),
    )
}

fn make_disk(runner: &mut Runner, disk: &Path) -> Result<()> {
    File::create(disk)?.set_len(DISK_BYTES)?;
    runner.run(Command::new("mke2fs").args(["-q", "-F", "-t", "ext4"]).arg(disk))?.success().map(drop)
}

/// An image of six layers with many files, the last with the sums of all of them: kept for the next run.
fn made_image() -> Result<PathBuf> {
    Ok(cached(&dir(), "power-cut-1", |dir| {
        let tree = Scratch::new("power-cut");
        let whole = tree.join("whole");
        busybox_rootfs(&whole)?;
        let layout = Layout::create(&dir.join("layout"))?;
        let mut layers = vec![layout.layer_of_tree(&whole)?];
        let mut seed = 1_u64;
        for layer in 0..4 {
            let part = tree.join(format!("layer-{layer}"));
            let data = part.join(format!("data/{layer}"));
            fs::create_dir_all(&data)?;
            for file in 0..150 {
                // Most are small; some are larger than what a file system keeps back before it writes.
                let bytes = if file % 50 == 0 { 1 << 20 } else { 3000 + file * 17 };
                fs::write(data.join(format!("file-{file}")), noise(&mut seed, bytes))?;
            }
            output_of(Command::new("cp").arg("-a").arg(part.join("data")).arg(&whole))?;
            layers.push(layout.layer_of_tree(&part)?);
        }
        let list = "cd \"$1\" && find bin/busybox data -type f | LC_ALL=C sort | xargs sha256sum";
        let sums = output_of(Command::new("sh").args(["-c", list, "sh"]).arg(&whole))?;
        let last = tree.join("last");
        fs::create_dir(&last)?;
        fs::write(last.join("sums"), &sums)?;
        fs::write(dir.join("sums"), &sums)?;
        layers.push(layout.layer_of_tree(&last)?);
        layout.image(NAME, serde_json::json!({"Cmd": ["sh"], "Env": ["PATH=/bin"]}), &layers)?;
        layout.archive(&dir.join("image.tar"))
    })?)
}

/// Bytes that do not compress, the same in every run (xorshift64).
fn noise(seed: &mut u64, bytes: usize) -> Vec<u8> {
    let mut noise = Vec::with_capacity(bytes + 8);
    while noise.len() < bytes {
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        noise.extend(seed.to_le_bytes());
    }
    noise.truncate(bytes);
    noise
}
