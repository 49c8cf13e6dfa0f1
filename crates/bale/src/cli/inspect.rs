//! `bale inspect`.

use std::process::ExitCode;

use bale_engine::{Engine, Image};
use bale_fault::{Context as _, Fault, Kind, Result};
use serde_json::{Value, json};

use super::{Context, volume};
use crate::{exit, output};

/// Arguments of `bale inspect`.
#[derive(clap::Args)]
pub struct Args {
    /// What the names mean
    #[arg(long = "type", value_name = "container|image|volume", value_parser = ["container", "image", "volume"])]
    kind: Option<String>,
    /// Print a value by its path, such as '{{.State.Pid}}' or '{{json .Config}}'
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Names or ids
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
}

/// Shows all that is known of containers, images or volumes.
pub fn run(args: Args, context: &Context) -> Result<ExitCode> {
    let engine = Engine::open(&context.root)?;
    let kind = args.kind.as_deref();
    let Some(format) = args.format else { return print(&args.names, |name| find(&engine, name, kind)) };
    let template = Template::parse(&format)?;
    Ok(super::each(&args.names, |name| template.fill(&find(&engine, name, kind)?).map(Some)))
}

/// Prints an array of what was found; what was not is told on standard error.
pub fn print(names: &[String], find: impl Fn(&str) -> Result<Value>) -> Result<ExitCode> {
    let mut found = Vec::new();
    let mut code = ExitCode::SUCCESS;
    for name in names {
        match find(name) {
            Ok(value) => found.push(value),
            Err(fault) => {
                exit::report(&fault);
                code = ExitCode::FAILURE;
            }
        }
    }
    let text =
        serde_json::to_string_pretty(&found).map_err(|e| Fault::new(Kind::Internal, "print").caused_by(e));
    output::write(&format!("{}\n", text?))?;
    Ok(code)
}

/// Finds a container, else an image, else a volume.
fn find(engine: &Engine, name: &str, kind: Option<&str>) -> Result<Value> {
    let container = || engine.inspect_container(name);
    let image = || engine.image(name).and_then(|image| describe_image(&image));
    match kind {
        Some("container") => return container(),
        Some("image") => return image(),
        Some(_) => return volume::describe(engine, name),
        None => {}
    }
    for found in [container(), image(), volume::describe(engine, name)] {
        match found {
            Err(fault) if matches!(fault.kind(), Kind::NotFound | Kind::InvalidInput) => {}
            other => return other,
        }
    }
    let words = format!("no such container, image or volume: {name}");
    Err(Fault::new(Kind::NotFound, words).hint("`bale ps -a`, `bale images` and `bale volume ls` list them"))
}

/// Describes an image under docker's keys.
fn describe_image(image: &Image) -> Result<Value> {
    let config: Value = serde_json::from_slice(&image.config_bytes)
        .map_err(|e| Fault::new(Kind::Corrupt, "the image's config").caused_by(e))
        .within(|| format!("inspect image {}", image.config_digest))?;
    let tags: Vec<String> = image.reference.iter().map(bale_spec::Reference::familiar).collect();
    let digests: Vec<String> = image
        .reference
        .iter()
        .map(|reference| {
            format!(
                "{}@{}",
                reference.familiar_repository(),
                image.index.as_ref().map_or(image.manifest_digest, |i| i.digest)
            )
        })
        .collect();
    Ok(json!({
        "Id": image.config_digest,
        "RepoTags": tags,
        "RepoDigests": digests,
        "Created": config.get("created"),
        "Author": config.get("author").cloned().unwrap_or_else(|| "".into()),
        "Architecture": image.config.architecture,
        "Os": image.config.os,
        "Size": image.manifest.layers.iter().map(|layer| layer.size).sum::<u64>(),
        "Config": config.get("config"),
        "RootFS": { "Type": "layers", "Layers": image.config.rootfs.diff_ids },
        "Descriptor": image.descriptor,
        "Manifest": image.manifest,
        "History": config.get("history"),
    }))
}

/// The part of Go's templates that people use on `inspect`: text, `{{.A.B}}` and `{{json .A}}`.
struct Template(Vec<Piece>);

enum Piece {
    Text(String),
    Path { path: Vec<String>, json: bool },
}

impl Template {
    fn parse(text: &str) -> Result<Self> {
        let text = if text == "json" { "{{json .}}" } else { text };
        let text = text.replace("\\t", "\t").replace("\\n", "\n");
        let invalid = |why: &str| {
            Fault::new(Kind::InvalidInput, format!("invalid --format: {why}"))
                .hint("want text with {{.A.B}} and {{json .A}} in it")
        };
        let mut pieces = Vec::new();
        let mut rest = text.as_str();
        while let Some((before, after)) = rest.split_once("{{") {
            let (inside, after) = after.split_once("}}").ok_or_else(|| invalid("{{ without }}"))?;
            pieces.push(Piece::Text(before.to_owned()));
            let inside = inside.trim();
            let (json, path) =
                inside.strip_prefix("json ").map_or((false, inside), |path| (true, path.trim()));
            let path =
                path.strip_prefix('.').ok_or_else(|| invalid(&format!("{{{{{inside}}}}} is not known")))?;
            let path = path.split('.').filter(|step| !step.is_empty()).map(str::to_owned).collect();
            pieces.push(Piece::Path { path, json });
            rest = after;
        }
        pieces.push(Piece::Text(rest.to_owned()));
        Ok(Self(pieces))
    }

    fn fill(&self, value: &Value) -> Result<String> {
        let mut text = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(part) => text.push_str(part),
                Piece::Path { path, json } => text.push_str(&shown(walk(value, path)?, *json)),
            }
        }
        Ok(text)
    }
}

fn walk<'a>(value: &'a Value, path: &[String]) -> Result<&'a Value> {
    let mut at = value;
    for step in path {
        at = at.get(step).ok_or_else(|| {
            let known: Vec<&str> =
                at.as_object().map(|o| o.keys().map(String::as_str).collect()).unwrap_or_default();
            let near = bale_spec::suggest::did_you_mean(step, known.iter().copied());
            Fault::new(Kind::InvalidInput, format!("--format: there is no {:?}{near}", path.join(".")))
        })?;
    }
    Ok(at)
}

/// Shows a value as Go does for plain ones, as JSON otherwise.
fn shown(value: &Value, json: bool) -> String {
    match value {
        Value::String(text) if !json => text.clone(),
        Value::Null if !json => "<no value>".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_walk() {
        let value = json!({"State": {"Pid": 7, "Status": "running"}, "Args": ["a"]});
        for (template, wanted) in [
            ("{{.State.Pid}}", "7"),
            ("{{.State.Status}} {{ json .Args }}", "running [\"a\"]"),
            ("{{json .State.Status}}", "\"running\""),
            ("text", "text"),
        ] {
            assert_eq!(Template::parse(template).unwrap().fill(&value).unwrap(), wanted);
        }
        assert!(
            Template::parse("{{.State.Pit}}").unwrap().fill(&value).is_err()
                && Template::parse("{{x}}").is_err()
        );
    }
}
