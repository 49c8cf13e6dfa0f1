//! Pull and push as people watch them: bars on a terminal, plain lines elsewhere.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};

use bale_engine::{Event, LayerState, Progress};
use bale_spec::Digest;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::exit::printable;
use crate::output::{self, Paint};

/// What a finished layer is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Layers come in.
    Pull,
    /// Layers go out.
    Push,
}

/// Which stream is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// `bale pull`: docker's lines are its output.
    Stdout,
    /// `bale run`: standard output belongs to the container.
    Stderr,
}

/// Shows progress.
pub struct Show {
    direction: Direction,
    stream: Stream,
    bars: Option<Bars>,
}

struct Bars {
    all: MultiProgress,
    layers: HashMap<Digest, ProgressBar>,
}

impl Show {
    /// Makes bars when the stream is a terminal, else plain lines.
    #[must_use]
    pub fn new(direction: Direction, stream: Stream) -> Self {
        let (terminal, target) = match stream {
            Stream::Stdout => (std::io::stdout().is_terminal(), ProgressDrawTarget::stdout()),
            Stream::Stderr => (std::io::stderr().is_terminal(), ProgressDrawTarget::stderr()),
        };
        let bars =
            terminal.then(|| Bars { all: MultiProgress::with_draw_target(target), layers: HashMap::new() });
        Self { direction, stream, bars }
    }

    fn line(&self, text: &str) {
        let text = printable(text);
        // Progress that nobody can read is no reason to stop.
        let _ = match (&self.bars, self.stream) {
            (Some(bars), _) => bars.all.println(text),
            (None, Stream::Stdout) => output::write(&format!("{text}\n")).map_err(std::io::Error::other),
            (None, Stream::Stderr) => writeln!(std::io::stderr(), "{text}"),
        };
    }

    fn layer(&mut self, digest: &Digest, size: u64, state: &LayerState) {
        let words = words(self.direction, state);
        let Some(bars) = &mut self.bars else {
            if let Some(words) = words {
                self.line(&format!("{}: {words}", digest.short()));
            }
            return;
        };
        let bar = bars.layers.entry(*digest).or_insert_with(|| bars.all.add(bar(digest, size)));
        match state {
            LayerState::Waiting => bar.set_message("Waiting"),
            LayerState::Bytes(count) => {
                if bar.position() == 0 {
                    bar.set_style(moving());
                    bar.set_message(if self.direction == Direction::Pull { "Pulling" } else { "Pushing" });
                }
                bar.set_position((*count).min(size));
            }
            LayerState::Exists | LayerState::Done | LayerState::Mounted => {
                bar.set_style(still());
                bar.finish_with_message(Paint::stdout().good(words.unwrap_or_default()));
            }
        }
    }
}

fn words(direction: Direction, state: &LayerState) -> Option<&'static str> {
    Some(match (direction, state) {
        (Direction::Pull, LayerState::Waiting) => "Pulling fs layer",
        (Direction::Pull, LayerState::Exists) => "Already exists",
        (Direction::Pull, LayerState::Done) => "Pull complete",
        (Direction::Push, LayerState::Waiting) => "Preparing",
        (Direction::Push, LayerState::Exists) => "Layer already exists",
        (Direction::Push, LayerState::Done) => "Pushed",
        (_, LayerState::Mounted) => "Mounted",
        (_, LayerState::Bytes(_)) => return None,
    })
}

fn bar(digest: &Digest, size: u64) -> ProgressBar {
    let bar = ProgressBar::new(size).with_style(still()).with_prefix(digest.short());
    bar.set_message("Waiting");
    bar
}

fn still() -> ProgressStyle {
    ProgressStyle::with_template("{prefix}: {msg}").unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn moving() -> ProgressStyle {
    let template = "{prefix}: {msg} [{bar:30}] {decimal_bytes}/{decimal_total_bytes}";
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.progress_chars("=> ")
}

impl Progress for Show {
    fn event(&mut self, event: &Event) {
        match event {
            Event::Begin { words } => self.line(words),
            Event::Layer { digest, size, state } => self.layer(digest, *size, state),
            Event::Warning { words } => {
                let line = format!("{}: {words}", Paint::stderr().warn("warning"));
                match &self.bars {
                    Some(_) => self.line(&format!("warning: {words}")),
                    None => drop(writeln!(std::io::stderr(), "bale: {line}")),
                }
            }
        }
    }
}
