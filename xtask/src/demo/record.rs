//! A run of the demo as an animated SVG: what it printed, line by line, without a script and without a player.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::cargo;
use crate::run::Result;

/// Lines that are seen at a time, and characters of each.
const ROWS: usize = 34;
const COLUMNS: usize = 116;
/// Size of a line and of a character, in SVG's units.
const LINE: f64 = 17.0;
const CHARACTER: f64 = 7.8;
/// How long a line, and the pause before a new part, lasts: the run itself is too quick to read. In seconds.
const LINE_S: f64 = 0.12;
const PART_S: f64 = 1.5;
/// How long the end stays.
const END_S: f64 = 8.0;

/// Writes the lines that a run has printed to `file`.
pub fn write(lines: &[String], file: &Path) -> Result<()> {
    // Where the checkout lies on the recorder's machine is nobody's business.
    let here = cargo::workspace().display().to_string();
    let lines: Vec<String> = lines.iter().map(|line| line.replace(&here, "~/bale")).collect();
    let lines: Vec<&str> = lines.iter().flat_map(|line| line.split('\n')).collect();
    fs::write(file, svg(&lines))?;
    Ok(())
}

fn svg(lines: &[&str]) -> String {
    let (width, height) = (as_f64(COLUMNS) * CHARACTER + 32.0, as_f64(ROWS + 1) * LINE + 24.0);
    let (times, total) = times(lines);
    let mut text = String::new();
    let _ = write!(
        text,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" font-family=\"monospace\" \
         font-size=\"13\">\n<title>cargo xtask demo, recorded; slowed down to be read, the times are the run's own</title>\n\
         <style>{}</style>\n<rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"#16181d\"/>\n\
         <svg x=\"16\" y=\"12\" width=\"{:.0}\" height=\"{:.0}\">\n<g class=\"roll\">\n",
        style(lines, &times, total),
        width - 32.0,
        as_f64(ROWS) * LINE + 4.0,
    );
    for (number, (line, at)) in lines.iter().zip(&times).enumerate() {
        let y = as_f64(number + 1) * LINE - 4.0;
        let _ = writeln!(
            text,
            "<text class=\"l {}\" style=\"animation-delay:{at:.2}s\" y=\"{y:.0}\" xml:space=\"preserve\">{}</text>",
            class(line),
            escaped(line)
        );
    }
    text.push_str("</g>\n</svg>\n</svg>\n");
    text
}

/// Returns when each line appears, and how long the whole lasts, in seconds.
fn times(lines: &[&str]) -> (Vec<f64>, f64) {
    let mut now = 0.5;
    let appear = |line: &&str| {
        now += if class(line) == "t" { PART_S } else { LINE_S };
        now
    };
    let times: Vec<f64> = lines.iter().map(appear).collect();
    (times, now + END_S)
}

/// Makes the style sheet: lines appear, and the roll moves up by one line for each that has no room.
fn style(lines: &[&str], times: &[f64], total: f64) -> String {
    let mut steps = String::from("0%{transform:translateY(0)}");
    for (number, at) in times.iter().enumerate().take(lines.len()).skip(ROWS) {
        let up = as_f64(number + 1 - ROWS) * LINE;
        let _ = write!(steps, "{:.3}%{{transform:translateY(-{up:.0}px)}}", at / total * 100.0);
    }
    let end = as_f64(lines.len().saturating_sub(ROWS)) * LINE;
    let _ = write!(steps, "100%{{transform:translateY(-{end:.0}px)}}");
    format!(
        "text{{fill:#aab2c0}}.c{{fill:#ffffff;font-weight:bold}}.t{{fill:#7cc5ff;font-weight:bold}}.p{{fill:#8ddb8c}}\
         .r{{fill:#6d7686}}.l{{opacity:0;animation:show .01s forwards}}@keyframes show{{to{{opacity:1}}}}\
         .roll{{animation:roll {total:.1}s step-end forwards}}@keyframes roll{{{steps}}}"
    )
}

/// Chooses a line's colour: command, title, proof, result, other.
fn class(line: &str) -> &'static str {
    let plain = line.trim_start();
    if plain.starts_with("$ ") {
        "c"
    } else if line.chars().next().is_some_and(|c| c.is_ascii_digit()) {
        "t"
    } else if plain.starts_with("proof:") || plain == "PONG" || plain.starts_with("left behind: nothing") {
        "p"
    } else if plain.starts_with('[') {
        "r"
    } else {
        "o"
    }
}

fn escaped(line: &str) -> String {
    let mut shown: String = line.chars().take(COLUMNS).collect();
    if line.chars().count() > COLUMNS {
        shown.pop();
        shown.push('…');
    }
    shown.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[allow(clippy::cast_precision_loss, reason = "lines and columns")]
fn as_f64(number: usize) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_a_run_cannot_break_the_picture() {
        let picture = svg(&["  $ bale run <image> && true", "1. a part", "    [ok, 0.001 s]"]);
        assert!(picture.contains("&lt;image&gt; &amp;&amp; true"), "{picture}");
        assert_eq!(picture.matches("<text").count(), 3);
    }
}
