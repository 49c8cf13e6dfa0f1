//! `bale inspect`.

use crate::exit::ExitCode;

use bale_engine::{Engine, Image};
use bale_fault::{Context as _, Fault, Kind, Result};
use serde_json::{Value, json};

use super::{Context, volume};
use crate::template::Template;
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
    print(&args.names, args.format.as_deref(), |name| find(&engine, name, kind))
}

/// Prints an array of what was found, or a line for each; what was not is told on standard error.
pub fn print(
    names: &[String],
    format: Option<&str>,
    find: impl Fn(&str) -> Result<Value>,
) -> Result<ExitCode> {
    if let Some(format) = format.filter(|format| *format != "json") {
        let template = Template::parse(format)?;
        return Ok(super::each(names, |name| template.fill(&find(name)?).map(Some)));
    }
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
        if format.is_some() { serde_json::to_string(&found) } else { serde_json::to_string_pretty(&found) };
    let text = text.map_err(|e| Fault::new(Kind::Internal, "print").caused_by(e));
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
