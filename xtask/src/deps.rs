//! `cargo xtask deps`: what the project is made of, as a reviewed list.
//!
//! `docs/dependencies.txt` names every crate from elsewhere with version, licence and who asks for it. A change of the
//! list is a change to be read: `cargo xtask deps --accept` writes it, review decides.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::cargo::{self, cargo};
use crate::run::{Result, Runner, fail};
use crate::{only, say};

/// The only crate of ours that may bring an async runtime (`deny.toml` says the same).
const ASYNC_ROOM: &str = "bale-registry";
/// Async runtimes.
const RUNTIMES: &[&str] = &["tokio", "async-std", "smol", "futures-executor"];

/// What `cargo xtask deps` does.
pub fn main(words: &[&str]) -> Result<()> {
    only(words, &["--accept"])?;
    let mut runner = Runner::new(&cargo::target().join("deps-run"))?;
    if words.contains(&"--accept") {
        let graph = Graph::read(&mut runner)?;
        fs::write(list_path(), graph.list())?;
        say(&format!("{} written; read the difference before you commit it", list_path().display()));
    }
    compare(&mut runner)
}

/// Compares the dependencies with the reviewed list, and checks who may use an async runtime.
pub fn compare(runner: &mut Runner) -> Result<()> {
    let graph = Graph::read(runner)?;
    let strangers = graph.async_outside_its_room();
    if !strangers.is_empty() {
        return fail(format!(
            "only {ASYNC_ROOM} may bring an async runtime, but so do: {}",
            strangers.join(", ")
        ));
    }
    let reviewed = fs::read_to_string(list_path()).unwrap_or_default();
    let (old, now) = (lines(&reviewed), graph.list());
    let new = lines(&now);
    let added = new.difference(&old).map(|line| format!("+ {line}"));
    let removed = old.difference(&new).map(|line| format!("- {line}"));
    let changes: Vec<String> = added.chain(removed).collect();
    if changes.is_empty() {
        return Ok(());
    }
    let words = "the dependencies are not those of docs/dependencies.txt; if the change is meant: cargo xtask deps --accept";
    fail(format!("{words}\n  {}", changes.join("\n  ")))
}

fn lines(text: &str) -> BTreeSet<&str> {
    text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect()
}

fn list_path() -> PathBuf {
    cargo::workspace().join("docs/dependencies.txt")
}

/// A crate of the dependency graph.
#[derive(Debug, Default)]
struct Node {
    name: String,
    version: String,
    licence: String,
    /// Of this workspace.
    own: bool,
    /// What it needs when it is built, not what its tests need.
    needs: Vec<String>,
    /// What only its tests need.
    tests_need: Vec<String>,
}

/// The dependency graph of the workspace, by cargo's package id.
#[derive(Debug)]
struct Graph {
    nodes: BTreeMap<String, Node>,
}

impl Graph {
    fn read(runner: &mut Runner) -> Result<Self> {
        let mut command = cargo();
        command.args(["metadata", "--format-version=1", "--filter-platform=x86_64-unknown-linux-gnu"]);
        let ran = runner.run(&mut command)?.success()?;
        Ok(Self::parse(&serde_json::from_str(&ran.stdout)?))
    }

    fn parse(metadata: &Value) -> Self {
        let own: BTreeSet<&str> = list(&metadata["workspace_members"]).filter_map(Value::as_str).collect();
        let mut nodes = BTreeMap::new();
        for package in list(&metadata["packages"]) {
            let id = text(&package["id"]);
            let node = Node {
                name: text(&package["name"]),
                version: text(&package["version"]),
                licence: text(&package["license"]),
                own: own.contains(id.as_str()),
                ..Node::default()
            };
            nodes.insert(id, node);
        }
        for resolved in list(&metadata["resolve"]["nodes"]) {
            let Some(node) = nodes.get_mut(&text(&resolved["id"])) else { continue };
            for need in list(&resolved["deps"]) {
                let for_tests = list(&need["dep_kinds"]).all(|kind| kind["kind"] == "dev");
                let to = if for_tests { &mut node.tests_need } else { &mut node.needs };
                to.push(text(&need["pkg"]));
            }
        }
        Self { nodes }
    }

    /// Returns the ids of all that `roots` need, themselves included.
    fn closure(&self, roots: impl IntoIterator<Item = String>) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let mut open: Vec<String> = roots.into_iter().collect();
        while let Some(id) = open.pop() {
            if let Some(node) = self.nodes.get(&id)
                && found.insert(id)
            {
                open.extend(node.needs.iter().cloned());
            }
        }
        found
    }

    /// Returns the reviewed list's text.
    fn list(&self) -> String {
        let root = |name: &str| {
            self.nodes
                .iter()
                .filter(|(_, node)| node.own && node.name == name)
                .map(|(id, _)| id.clone())
                .collect::<Vec<_>>()
        };
        let shipped = self.closure(root("bale"));
        let own = self.nodes.iter().filter(|(_, node)| node.own);
        let roots = own.flat_map(|(id, node)| std::iter::once(id).chain(&node.tests_need)).cloned();
        let rest: BTreeSet<String> = self.closure(roots).difference(&shipped).cloned().collect();
        let mut text = String::from(
            "# Every crate from elsewhere: name, version, licence, and which crates ask for it.\n\
             # Compared by `cargo xtask deps` and `cargo xtask test`; written by `cargo xtask deps --accept`.\n",
        );
        for (title, ids) in [("in the binary", shipped), ("only in tests and tools", rest)] {
            let lines: BTreeSet<String> = ids.iter().filter_map(|id| self.line(id, title)).collect();
            text.push_str(&format!("\n# {title}: {}\n", lines.len()));
            lines.iter().for_each(|line| text.push_str(&format!("{line}\n")));
        }
        text
    }

    fn line(&self, id: &str, title: &str) -> Option<String> {
        let node = self.nodes.get(id).filter(|node| !node.own)?;
        let asks = |other: &&Node| other.needs.iter().chain(&other.tests_need).any(|need| need == id);
        let askers: BTreeSet<&str> =
            self.nodes.values().filter(asks).map(|other| other.name.as_str()).collect();
        let askers: Vec<&str> = askers.into_iter().collect();
        let mark = if title == "in the binary" { "" } else { "(tests) " };
        Some(format!("{mark}{} {} [{}] <- {}", node.name, node.version, node.licence, askers.join(", ")))
    }

    /// Names our crates, other than [`ASYNC_ROOM`] and those that use it, that bring an async runtime.
    fn async_outside_its_room(&self) -> Vec<String> {
        let brings = |id: &String| {
            // What comes through the room is the room's affair.
            let direct = self
                .nodes
                .get(id)
                .into_iter()
                .flat_map(|node| &node.needs)
                .filter(|need| self.nodes.get(*need).is_some_and(|n| !n.own));
            let reached = self.closure(direct.cloned());
            reached
                .iter()
                .any(|found| self.nodes.get(found).is_some_and(|node| RUNTIMES.contains(&node.name.as_str())))
        };
        let own = self.nodes.iter().filter(|(_, node)| node.own && node.name != ASYNC_ROOM);
        own.filter(|(id, _)| brings(id)).map(|(_, node)| node.name.clone()).collect()
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_async_runtime_outside_its_room_is_named() {
        let package = |name: &str| json!({"id": name, "name": name, "version": "1.0.0", "license": "MIT"});
        let edge = |to: &str, kind: Value| json!({"pkg": to, "dep_kinds": [{"kind": kind}]});
        let packages = ["bale", "bale-registry", "bale-engine", "hyper", "tokio", "insta"].map(package);
        let metadata = json!({
            "packages": packages,
            "workspace_members": ["bale", "bale-registry", "bale-engine"],
            "resolve": {"nodes": [
                {"id": "bale", "deps": [edge("bale-engine", Value::Null), edge("insta", json!("dev"))]},
                {"id": "bale-engine", "deps": [edge("bale-registry", Value::Null), edge("hyper", Value::Null)]},
                {"id": "bale-registry", "deps": [edge("hyper", Value::Null)]},
                {"id": "hyper", "deps": [edge("tokio", Value::Null)]},
            ]},
        });
        let graph = Graph::parse(&metadata);
        assert_eq!(graph.async_outside_its_room(), ["bale-engine"]);
        let list = graph.list();
        assert!(list.contains("\nhyper 1.0.0 [MIT] <- bale-engine, bale-registry\n"), "{list}");
        assert!(list.contains("\n(tests) insta 1.0.0 [MIT] <- bale\n"), "{list}");
    }
}
