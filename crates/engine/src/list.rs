//! `ps`: the containers and how they are.

use std::collections::BTreeMap;

use bale_fault::{Fault, Kind, Result};
use bale_record::Record;
use bale_record::time::Time;
use bale_spec::Digest;

use crate::Engine;
use crate::container::{Container, Status, status};
use crate::pattern;

/// One line of `bale ps`.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Id: 64 digits.
    pub id: String,
    /// Name; empty when its making was broken off before it had one.
    pub name: String,
    /// The image as it was named, or the bundle's directory.
    pub image: String,
    /// The image's id.
    pub image_id: Option<Digest>,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// RFC 3339 time.
    pub created: String,
    /// How it is.
    pub status: Status,
    /// Docker's words for how it is and since when.
    pub words: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// What is mounted: names of volumes.
    pub volumes: Vec<String>,
    /// Where volumes are mounted.
    pub destinations: Vec<String>,
    /// `host` or `none`.
    pub network: String,
}

/// Which containers are listed: all conditions of different kinds hold, and one of each kind (docker's rule).
#[derive(Clone, Debug, Default)]
pub struct Filters(BTreeMap<String, Vec<String>>);

const KEYS: [&str; 10] =
    ["ancestor", "before", "exited", "id", "label", "name", "network", "since", "status", "volume"];
const STATUSES: [&str; 7] = ["created", "dead", "exited", "paused", "removing", "restarting", "running"];

impl Filters {
    /// Reads `key=value` words.
    ///
    /// # Errors
    /// `InvalidInput` for a key that is not known or a value that cannot be.
    pub fn parse(words: &[String]) -> Result<Self> {
        let mut filters = Self::default();
        for word in words {
            let wrong =
                |reason: String| Fault::new(Kind::InvalidInput, format!("--filter {word:?}: {reason}"));
            let (key, value) = word.split_once('=').ok_or_else(|| wrong("want key=value".to_owned()))?;
            if !KEYS.contains(&key) {
                let near = bale_spec::suggest::did_you_mean(key, KEYS);
                return Err(wrong(format!("unknown key{near}")).hint(format!("keys are {}", KEYS.join(", "))));
            }
            if key == "status" && !STATUSES.contains(&value) {
                let near = bale_spec::suggest::did_you_mean(value, STATUSES);
                return Err(wrong(format!("unknown status{near}")));
            }
            if key == "exited" && value.parse::<i32>().is_err() {
                return Err(wrong("want an exit status".to_owned()));
            }
            filters.0.entry(key.to_owned()).or_default().push(value.to_owned());
        }
        Ok(filters)
    }

    /// Tells whether a container is asked for whether or not it runs.
    #[must_use]
    pub fn names_status(&self) -> bool {
        self.0.contains_key("status") || self.0.contains_key("exited")
    }

    fn admit(&self, listed: &Listed) -> bool {
        // Both need the other containers: `within` has applied them.
        self.0.iter().filter(|(key, _)| !matches!(key.as_str(), "before" | "since")).all(|(key, values)| {
            let mut values = values.iter();
            match key.as_str() {
                // Every label has to be there.
                "label" => values.all(|value| has_label(&listed.labels, value)),
                _ => values.any(|value| admits(key, value, listed)),
            }
        })
    }
}

fn has_label(labels: &BTreeMap<String, String>, wanted: &str) -> bool {
    match wanted.split_once('=') {
        Some((key, value)) => labels.get(key).is_some_and(|found| found == value),
        None => labels.contains_key(wanted),
    }
}

fn admits(key: &str, value: &str, listed: &Listed) -> bool {
    match key {
        "status" => listed.status.name() == value,
        "exited" => {
            matches!(listed.status, Status::Exited(Some(code)) if value.parse() == Ok(i32::from(code)))
        }
        // Docker's names begin with a slash, and both spellings are matched.
        "name" => pattern::found(value, &listed.name) || pattern::found(value, &format!("/{}", listed.name)),
        "network" => listed.network == value,
        "id" => listed.id.starts_with(value),
        "volume" => listed.volumes.iter().chain(&listed.destinations).any(|known| known == value),
        "ancestor" => is_ancestor(value, listed),
        _ => false,
    }
}

fn is_ancestor(wanted: &str, listed: &Listed) -> bool {
    let id = listed.image_id.map(|digest| digest.to_string()).unwrap_or_default();
    let hexadecimal = wanted.trim_start_matches("sha256:");
    let same = |a: &str, b: &str| match (a.parse::<bale_spec::Reference>(), b.parse::<bale_spec::Reference>())
    {
        (Ok(a), Ok(b)) => a == b,
        _ => a == b,
    };
    same(wanted, &listed.image)
        || (hexadecimal.len() >= 4 && id.trim_start_matches("sha256:").starts_with(hexadecimal))
}

impl Engine {
    /// Lists containers, the newest first.
    ///
    /// # Errors
    /// The failed call.
    pub fn list(&self, all: bool, filters: &Filters) -> Result<Vec<Listed>> {
        let now = Time::now();
        let ids = bale_record::list(&self.containers())?;
        let mut found: Vec<Listed> = ids.iter().filter_map(|id| self.listed(id, now)).collect();
        found.sort_by(|a, b| b.created.cmp(&a.created));
        let found = self.within(found, filters)?;
        let shown = |listed: &Listed| all || filters.names_status() || listed.status.is_running();
        Ok(found.into_iter().filter(|listed| shown(listed) && filters.admit(listed)).collect())
    }

    /// Keeps what `before` and `since` leave of a list, the newest first.
    fn within(&self, mut found: Vec<Listed>, filters: &Filters) -> Result<Vec<Listed>> {
        for (key, newer) in [("before", false), ("since", true)] {
            for name in filters.0.get(key).into_iter().flatten() {
                let id = self.container(name)?.record.id;
                let Some(at) = found.iter().position(|listed| listed.id == id) else { continue };
                found = if newer { found.drain(..at).collect() } else { found.split_off(at + 1) };
            }
        }
        Ok(found)
    }

    /// Describes one container; `None` when it has gone meanwhile.
    fn listed(&self, id: &str, now: Time) -> Option<Listed> {
        let container = match Container::open(self, id) {
            Ok(container) => container,
            Err(_) if !self.containers().join(id).exists() => return None,
            // Its making was broken off before its record was written, or the record is damaged.
            Err(_) => return Some(broken(id)),
        };
        let Container { record, details, .. } = container;
        let network = match details.options.network {
            bale_spec::options::Network::Host => "host",
            _ => "none",
        };
        Some(Listed {
            id: id.to_owned(),
            status: status(&record),
            words: words(&record, now),
            created: record.created,
            name: details.name,
            image: details.image,
            image_id: details.image_id,
            command: details.command,
            labels: details.labels,
            destinations: details.volumes.iter().map(|volume| volume.destination.clone()).collect(),
            volumes: details.volumes.into_iter().map(|volume| volume.name).collect(),
            network: network.to_owned(),
        })
    }
}

fn broken(id: &str) -> Listed {
    Listed {
        id: id.to_owned(),
        name: String::new(),
        image: String::new(),
        image_id: None,
        command: Vec::new(),
        created: String::new(),
        status: Status::Dead,
        words: "Dead".to_owned(),
        labels: BTreeMap::new(),
        volumes: Vec::new(),
        destinations: Vec::new(),
        network: String::new(),
    }
}

/// Says how a container is and since when, in docker's words.
#[must_use]
pub fn words(record: &Record, now: Time) -> String {
    let since = |text: Option<&String>| text.and_then(|text| Time::parse(text)).map(|then| span(then, now));
    match status(record) {
        Status::Created => "Created".to_owned(),
        Status::Removing => "Removal In Progress".to_owned(),
        Status::Dead => "Dead".to_owned(),
        Status::Running { supervised } => {
            let up =
                since(record.started.as_ref()).map_or_else(|| "Up".to_owned(), |span| format!("Up {span}"));
            if supervised { up } else { format!("{up} (supervisor lost)") }
        }
        Status::Exited(None) => "Exited (code unknown: supervisor lost)".to_owned(),
        Status::Exited(Some(code)) => {
            let ago = since(record.exit.as_ref().map(|exit| &exit.at)).unwrap_or_default();
            format!("Exited ({code}) {ago} ago")
        }
    }
}

/// Says how long it is from `then` to `now`, as docker does.
#[must_use]
pub fn span(then: Time, now: Time) -> String {
    let nanoseconds = i64::from(now.nanoseconds) - i64::from(then.nanoseconds);
    let seconds = (now.seconds - then.seconds + nanoseconds.div_euclid(1_000_000_000)).max(0);
    let minutes = seconds / 60;
    // Docker rounds hours to the nearest and cuts everything else.
    let hours = (seconds + 1800) / 3600;
    match (seconds, minutes, hours) {
        (0, ..) => "Less than a second".to_owned(),
        (1, ..) => "1 second".to_owned(),
        (2..60, ..) => format!("{seconds} seconds"),
        (_, 1, _) => "About a minute".to_owned(),
        (_, 2..60, _) => format!("{minutes} minutes"),
        (_, _, 1) => "About an hour".to_owned(),
        (_, _, 2..48) => format!("{hours} hours"),
        (_, _, 48..336) => format!("{} days", hours / 24),
        (_, _, 336..1440) => format!("{} weeks", hours / 24 / 7),
        (_, _, 1440..17520) => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", seconds / 3600 / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_dockers() {
        for (seconds, words) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (3599, "59 minutes"),
            (3600, "About an hour"),
            (2 * 3600, "2 hours"),
            (47 * 3600, "47 hours"),
            (48 * 3600, "2 days"),
            (13 * 86_400, "13 days"),
            (14 * 86_400, "2 weeks"),
            (60 * 86_400, "2 months"),
            (730 * 86_400, "2 years"),
        ] {
            let then = Time { seconds: 1_000_000, nanoseconds: 5 };
            assert_eq!(span(then, Time { seconds: 1_000_000 + seconds, nanoseconds: 5 }), words, "{seconds}");
        }
    }

    fn listed() -> Listed {
        Listed {
            name: "web".to_owned(),
            image: "redis:7".to_owned(),
            status: Status::Exited(Some(3)),
            labels: [("a".to_owned(), "b".to_owned())].into(),
            ..broken("abc")
        }
    }

    #[test]
    fn filters_admit_as_dockers_do() {
        for (words, wanted) in [
            (&["name=we"][..], true),
            (&["name=x"], false),
            (&["name=x", "name=we"], true),
            (&["status=exited", "exited=3"], true),
            (&["status=running", "exited=3"], false),
            (&["exited=0"], false),
            (&["label=a"], true),
            (&["label=a=b", "label=c"], false),
            (&["ancestor=docker.io/library/redis:7"], true),
            (&["ancestor=redis"], false),
            (&["id=ab"], true),
            (&["name=^web$"], true),
            (&["name=^eb"], false),
            (&["network=none"], false),
        ] {
            let words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
            assert_eq!(Filters::parse(&words).unwrap().admit(&listed()), wanted, "{words:?}");
        }
        for bad in ["name", "nam=x", "status=runing", "exited=x"] {
            assert!(Filters::parse(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }
}
