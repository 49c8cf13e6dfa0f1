//! The part of Go's templates that people use in `--format`: text, `{{.A.B}}`, `json len index join eq …`, pipes,
//! `if`, `range` and `with`.

use bale_fault::{Fault, Kind, Result};
use serde_json::Value;

mod eval;
mod parse;

/// What a template may nest, so that its text cannot exhaust the stack.
const DEPTH: usize = 64;
/// Keys below which names are the user's, so that a missing one is no mistake in the template.
const MAPS: [&str; 8] =
    ["Labels", "Annotations", "Networks", "Ports", "ExposedPorts", "Volumes", "Tmpfs", "Sysctls"];

/// A template that was understood.
#[derive(Debug)]
pub struct Template(Vec<Node>);

#[derive(Debug)]
enum Node {
    Text(String),
    Show(Expr),
    If(Expr, Vec<Node>, Vec<Node>),
    With(Expr, Vec<Node>, Vec<Node>),
    Range { names: Vec<String>, over: Expr, body: Vec<Node>, otherwise: Vec<Node> },
}

#[derive(Clone, Debug)]
enum Expr {
    /// `.A.B` from the dot, or from a variable (`$` is the whole).
    Path {
        variable: Option<String>,
        steps: Vec<String>,
    },
    Literal(Value),
    /// A function, or a method (`.Label "x"`) whose name starts with a dot.
    Call(String, Vec<Expr>),
}

impl Template {
    /// Reads a template; `\t` and `\n` outside of actions stand for a tab and a line's end.
    ///
    /// # Errors
    /// `InvalidInput` says what is not understood.
    pub fn parse(text: &str) -> Result<Self> {
        parse::parse(text).map(Self)
    }

    /// Fills it with a value.
    ///
    /// # Errors
    /// `InvalidInput` for a name that the value does not have.
    pub fn fill(&self, value: &Value) -> Result<String> {
        eval::fill(&self.0, value)
    }
}

fn invalid(why: &str) -> Fault {
    Fault::new(Kind::InvalidInput, format!("invalid --format: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn filled(template: &str) -> Result<String> {
        let value = json!({
            "State": {"Pid": 7, "Status": "running", "Running": true, "Error": ""}, "Args": ["a", "b c"], "None": null,
            "Config": {"Labels": {"own": "1", "z": "26"}}, "Mounts": [{"Type": "bind"}, {"Type": "volume"}],
            "Names": "web", "Labels": "k=v,other=w",
        });
        Template::parse(template)?.fill(&value)
    }

    #[test]
    fn templates_are_gos() {
        // Each line was run through Go's text/template with docker's functions.
        for (template, wanted) in [
            ("{{.State.Pid}}", "7"),
            ("{{.State.Status}} {{ json .Args }}", "running [\"a\",\"b c\"]"),
            ("{{json .State.Status}}", "\"running\""),
            ("{{.Args}} {{.Config.Labels}}", "[a b c] map[own:1 z:26]"),
            ("text\\t{{`raw`}}", "text\traw"),
            ("{{len .Mounts}} {{len .Names}}", "2 3"),
            ("{{index .Config.Labels \"own\"}}{{index .Config.Labels \"none\"}}", "1"),
            ("{{index .Args 1}}", "b c"),
            ("{{(index .Mounts 0).Type}}", "bind"),
            ("{{range .Mounts}}{{.Type}},{{end}}", "bind,volume,"),
            ("{{range $i, $m := .Mounts}}{{$i}}={{$m.Type}} {{end}}", "0=bind 1=volume "),
            ("{{range $k, $v := .Config.Labels}}{{$k}}:{{$v}} {{$.Names}} {{end}}", "own:1 web z:26 web "),
            ("{{range .None}}x{{else}}nothing{{end}}", "nothing"),
            ("{{if .State.Running}}yes{{else}}no{{end}}", "yes"),
            ("{{if .State.Error}}a{{else if eq .State.Status \"running\"}}b{{else}}c{{end}}", "b"),
            ("{{if and .State.Running (not .State.Error)}}both{{end}}", "both"),
            ("{{with .State}}{{.Pid}}{{end}}", "7"),
            ("{{.Args | json}} {{join .Args \"+\"}} {{.Names | upper}}", "[\"a\",\"b c\"] a+b c WEB"),
            ("{{printf \"%s %d %q %v\" .Names .State.Pid .Names .Args}}", "web 7 \"web\" [a b c]"),
            ("{{println .Names}}", "web\n"),
            ("a {{- .Names -}} b", "awebb"),
            ("{{/* a remark */}}x", "x"),
            ("{{.Label \"k\"}}", "v"),
            ("{{.Config.Labels.missing}} {{.None}}", "<no value> <no value>"),
            ("{{split .Names \"e\"}} {{\"q\\\"\"}}", "[w b] q\""),
        ] {
            assert_eq!(filled(template).unwrap(), wanted, "{template}");
        }
    }

    #[test]
    fn mistakes_are_told() {
        for (template, part) in [
            ("{{.State.Pit}}", "did you mean \"Pid\""),
            ("{{x}}", "no function"),
            ("{{", "without }}"),
            ("{{if .A}}", "without {{end}}"),
            ("{{end}}", "{{end}}"),
            ("{{index .Args 9}}", "9"),
            ("{{jsn .}}", "did you mean \"json\""),
            ("{{json .}", "without }}"),
            ("{{.Names \"x\"}}", "Names"),
        ] {
            let fault = filled(template).unwrap_err();
            assert!(fault.chain().contains(part), "{template}: {}", fault.chain());
        }
        assert!(Template::parse(&format!("{{{{{}1{}}}}}", "(".repeat(9999), ")".repeat(9999))).is_err());
        assert!(Template::parse(&"{{if 1}}".repeat(9999)).is_err());
    }
}
