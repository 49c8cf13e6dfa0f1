//! `cargo xtask layout`: which functions the short commands run, and from that `crates/bale/layout.ld`.
//!
//! Most of the program is for images and people; `create`, `start`, `delete` and their kin run a twentieth of it, spread
//! over all. The kernel maps a program by windows of 64 KiB, a few microseconds each: with their functions side by side
//! these commands touch a dozen windows instead of fifty. What stands in the layout and is no more, or is new and not
//! in it, is where the linker puts it: the program is the same, a little slower. To be run when the commands changed
//! much.
//!
//! The commands run one instruction at a time (`floor/steps.c`) and the linker's map says what the addresses are.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use bale_testkit::output_of;

use crate::cargo::{self, Profile};
use crate::run::{Failure, Result, Runner, fail};
use crate::say;

/// In the order in which their functions are laid out: the shortest first.
const COMMANDS: [&str; 7] = ["state", "start", "delete", "kill", "create", "exec", "run"];

/// Prepares the commands and runs them with a cgroup2 and a `/run` of their own.
const SCRIPT: &str = r#"
set -e
dir=$1
mount -t tmpfs none /run
mount -t cgroup2 none /sys/fs/cgroup
mkdir -p /run/rootfs/bin /run/rootfs/dev /run/rootfs/proc /run/rootfs/sys /run/once /run/stay /sys/fs/cgroup/bale-layout
cp "$dir/true" "$dir/payload" /run/rootfs/bin
cp "$dir/payload" /run/rootfs/bin/stay
bale="$dir/bale runc --root /run/state"
for name in once stay; do
    "$dir/bale" runc spec --bundle /run/$name
    sed -i -e 's/"terminal": true/"terminal": false/' -e 's/"sh"/"\/bin\/'$name'"/' -e 's/"rootfs"/"\/run\/rootfs"/' \
        -e 's/"linux": {/"linux": {"cgroupsPath": "\/bale-layout\/'$name'",/' /run/$name/config.json
done
cp "$dir/true" /run/rootfs/bin/once
trap 'rmdir /sys/fs/cgroup/bale-layout/* /sys/fs/cgroup/bale-layout 2>/dev/null || true' EXIT
"$dir/steps" "$dir/run" $bale run --bundle /run/once once </dev/null >/dev/null
$bale create --bundle /run/stay stay </dev/null >/dev/null 2>&1
"$dir/steps" "$dir/start" $bale start stay
"$dir/steps" "$dir/exec" $bale exec stay /bin/true </dev/null >/dev/null
"$dir/steps" "$dir/state" $bale state stay >/dev/null
"$dir/steps" "$dir/kill" $bale kill stay KILL
while $bale state stay | grep -q '"running"'; do sleep 0.01; done
"$dir/steps" "$dir/delete" $bale delete stay
# Its init stays, and is what the tracer waits for.
"$dir/steps" "$dir/create" $bale create --bundle /run/stay again </dev/null >/dev/null 2>&1 &
tracer=$!
until $bale state again 2>/dev/null | grep -q '"created"'; do sleep 0.05; done
$bale delete --force again
wait $tracer
"#;

/// A piece of code as the linker's map names it.
#[derive(Debug, PartialEq, Eq)]
struct Section {
    at: u64,
    size: u64,
    /// What the linker's script calls it: a pattern of the file and one of the section.
    pattern: String,
}

/// What `cargo xtask layout` does.
pub fn main() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        return fail("the layout needs root: it runs containers");
    }
    let dir = cargo::target().join("layout");
    fs::create_dir_all(&dir)?;
    let map = dir.join("map");
    let mut runner = Runner::new(&dir.join("output"))?;
    let bale = cargo::build_bale_with_map(&mut runner, Profile::Release, &map)?;
    fs::copy(bale, dir.join("bale"))?;
    let sources = cargo::workspace().join("xtask/floor");
    for name in ["steps", "payload", "true"] {
        let mut compiler = Command::new("cc");
        compiler.args(["-static", "-O2", "-w", "-o"]).arg(dir.join(name));
        if name == "true" {
            compiler.arg("-nostdlib");
        }
        output_of(compiler.arg(sources.join(format!("{name}.c"))))?;
    }
    say("running the commands, one instruction at a time …");
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", SCRIPT, "layout"]).arg(&dir);
    output_of(&mut command)?;
    let sections = sections(&fs::read_to_string(&map)?);
    let file = cargo::workspace().join("crates/bale/layout.ld");
    let (text, words) = script(&sections, &executed(&dir)?)?;
    fs::write(&file, text)?;
    say(&format!("{words}: {}", file.display()));
    Ok(())
}

/// Reads the executed addresses, in the order of [`COMMANDS`].
fn executed(dir: &Path) -> Result<Vec<u64>> {
    let mut all = Vec::new();
    for name in COMMANDS {
        let text = fs::read_to_string(dir.join(name))?;
        all.extend(text.lines().filter_map(|line| u64::from_str_radix(line, 16).ok()));
    }
    Ok(all)
}

/// Reads the sections with code from a map of lld: address, address, size, alignment, and by its indent the input.
fn sections(map: &str) -> Vec<Section> {
    let mut sections: Vec<Section> = map.lines().filter_map(section).collect();
    sections.sort_by_key(|section| section.at);
    sections
}

fn section(line: &str) -> Option<Section> {
    let mut words = line.split_whitespace();
    let at = u64::from_str_radix(words.next()?, 16).ok()?;
    let size = u64::from_str_radix(words.nth(1)?, 16).ok()?;
    let input = words.nth(1)?.strip_suffix(')')?;
    let (file, name) = input.rsplit_once(":(")?;
    if !name.starts_with(".text") {
        return None;
    }
    Some(Section { at, size, pattern: format!("{}({})", file_pattern(file)?, section_pattern(name)) })
}

/// A member of a C archive by its name, a crate's code by the crate: the rest of its names changes with every build.
fn file_pattern(file: &str) -> Option<String> {
    if let Some((archive, member)) = file.strip_suffix(')').and_then(|file| file.rsplit_once('('))
        && archive.ends_with(".a")
    {
        return Some(format!("*{}:{member}", archive.rsplit('/').next()?));
    }
    let (before, _) = file.rsplit_once("-cgu.")?;
    let crate_name = before.rsplit_once('.')?.0.rsplit(['.', '/', '(', ':']).next()?;
    Some(format!("*[.:/]{crate_name}.*-cgu.*"))
}

/// Replaces what names of functions have of the compiler's numbers.
fn section_pattern(name: &str) -> String {
    let name = name.split_once(".llvm.").map_or(name, |(name, _)| name);
    if let Some((name, _)) = name.rsplit_once("17h") {
        return format!("{name}17h*");
    }
    let mut pattern = String::new();
    let mut rest = name;
    // `Cs…_` is a crate's number in the newer way of writing names.
    while let Some((before, after)) = rest.split_once("Cs") {
        pattern.push_str(before);
        match after.split_once('_') {
            Some((number, after)) if (8..=13).contains(&number.len()) => {
                pattern.push_str("Cs*_");
                rest = after;
            }
            _ => {
                pattern.push_str("Cs");
                rest = after;
            }
        }
    }
    pattern + rest
}

/// Writes the linker's script: first patterns whose code is mostly executed, then those of many functions of one name.
fn script(sections: &[Section], executed: &[u64]) -> Result<(String, String)> {
    let mut order: Vec<usize> = Vec::new();
    let mut known = vec![false; sections.len()];
    for address in executed {
        let Some(index) = sections.partition_point(|s| s.at <= *address).checked_sub(1) else { continue };
        if *address < sections[index].at + sections[index].size && !known[index] {
            known[index] = true;
            order.push(index);
        }
    }
    if order.len() < 100 {
        return Err(Failure::Words("the map does not fit the program".to_owned()));
    }
    let mut sizes: HashMap<&str, (u64, u64)> = HashMap::new();
    for (index, section) in sections.iter().enumerate() {
        let entry = sizes.entry(&section.pattern).or_default();
        entry.0 += section.size;
        entry.1 += if known[index] { section.size } else { 0 };
    }
    let mut patterns: Vec<&str> = Vec::new();
    for index in &order {
        let pattern = sections[*index].pattern.as_str();
        if !patterns.contains(&pattern) {
            patterns.push(pattern);
        }
    }
    let sparse = |pattern: &&str| sizes.get(*pattern).is_some_and(|(all, run)| run * 2 < *all);
    let (sparse, dense): (Vec<&str>, Vec<&str>) = patterns.into_iter().partition(sparse);
    let lines: String = dense.iter().chain(&sparse).map(|pattern| format!("    {pattern}\n")).collect();
    let text = format!(
        "/* Made by `cargo xtask layout`: the functions of the short commands, side by side. */\n\
         SECTIONS\n{{\n  .text.often :\n  {{\n{lines}  }}\n}}\nINSERT BEFORE .text;\n"
    );
    let of = |patterns: &[&str]| {
        patterns.iter().filter_map(|p| sizes.get(p)).map(|(all, _)| all >> 10).sum::<u64>()
    };
    let words = format!("{} functions, {} KiB and {} KiB", order.len(), of(&dense), of(&sparse));
    Ok((text, words))
}

#[cfg(test)]
mod tests {
    use super::{file_pattern, section, section_pattern};

    #[test]
    fn a_line_of_the_map_is_a_section() {
        let line = "  3b9c80   3b9c80   1f0   16    /t/deps/bale-1f.bale_sys-2.bale_sys.0123456789abcdef-cgu.2.rcgu.o.rcgu.o:\
                    (.text._ZN8bale_sys4seal9is_sealed17h0123456789abcdefE.llvm.12)";
        let found = section(line).unwrap();
        assert_eq!((found.at, found.size), (0x3b_9c80, 0x1f0));
        assert_eq!(found.pattern, "*[.:/]bale_sys.*-cgu.*(.text._ZN8bale_sys4seal9is_sealed17h*)");
        assert_eq!(section("  200270  200270  20  4  /x/crt1.o:(.note.ABI-tag)"), None);
    }

    #[test]
    fn patterns_have_no_numbers_of_one_build() {
        assert_eq!(file_pattern("/usr/lib/libc.a(malloc.o)").unwrap(), "*libc.a:malloc.o");
        assert_eq!(file_pattern("/usr/lib/crt1.o"), None);
        let name = ".text._RNvNtCsjrHSEGnQ3l9_3std2rt4init";
        assert_eq!(section_pattern(name), ".text._RNvNtCs*_3std2rt4init");
    }
}
