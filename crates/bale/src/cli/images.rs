//! `bale images`.

use crate::exit::ExitCode;

use bale_engine::{Engine, Summary};
use bale_fault::{Fault, Kind, Result};
use bale_record::time::Time;
use bale_spec::Reference;

use super::Context;
use crate::exit;
use crate::output::{self, Column};

const NONE: &str = "<none>";

/// Arguments of `bale images`.
#[derive(clap::Args)]
pub struct Args {
    /// Show only images of this repository[:tag]; * and ? stand for letters
    #[arg(value_name = "REPOSITORY[:TAG]")]
    name: Option<String>,
    /// Show all images; bale has no intermediate ones, so this changes nothing
    #[arg(short, long)]
    all: bool,
    /// Print the ids only
    #[arg(short, long)]
    quiet: bool,
    /// Show the digests that registries know the images by
    #[arg(long)]
    digests: bool,
    /// Show the ids in full
    #[arg(long)]
    no_trunc: bool,
    /// Show what fits: dangling=true|false, label=KEY[=VALUE], reference=PATTERN, before=IMAGE, since=IMAGE
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Print table, json, or a template such as '{{.Repository}}:{{.Tag}}'
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

/// Lists images.
pub fn run(args: Args, context: &Context) -> Result<ExitCode> {
    let filters = args.filter.iter().map(|text| Filter::parse(text)).collect::<Result<Vec<_>>>()?;
    let pattern = args.name.clone().map(Filter::Reference);
    let (images, damaged) = Engine::open(&context.root)?.images()?;
    let images = within(images, &filters)?;
    let fits = |image: &&Summary| filters.iter().chain(&pattern).all(|filter| filter.fits(image));
    let images: Vec<&Summary> = images.iter().filter(fits).collect();
    if args.quiet {
        let lines = images.iter().map(|image| id(image, args.no_trunc) + "\n");
        output::write(&lines.collect::<String>())?;
    } else {
        let rows: Vec<Vec<String>> = images.iter().map(|image| row(image, args.no_trunc)).collect();
        output::list(&columns(args.digests), &rows, args.format.as_deref())?;
    }
    for chain in damaged {
        exit::report(&Fault::new(Kind::Corrupt, chain));
    }
    Ok(ExitCode::SUCCESS)
}

fn columns(digests: bool) -> [Column; 11] {
    let digest = if digests { Column::new("Digest", "DIGEST") } else { Column::hidden("Digest") };
    [
        Column::new("Repository", "REPOSITORY"),
        Column::new("Tag", "TAG"),
        digest,
        Column::new("ID", "IMAGE ID"),
        Column::new("CreatedSince", "CREATED"),
        Column::hidden("CreatedAt"),
        Column::hidden("Containers"),
        Column::new("Size", "SIZE"),
        Column::hidden("SharedSize"),
        Column::hidden("UniqueSize"),
        Column::hidden("VirtualSize"),
    ]
}

fn row(image: &Summary, no_trunc: bool) -> Vec<String> {
    let reference = image.reference.as_ref();
    let created = image.created.as_deref().and_then(Time::parse);
    vec![
        reference.map_or_else(|| NONE.to_owned(), Reference::familiar_repository),
        reference.and_then(Reference::tag).unwrap_or(NONE).to_owned(),
        reference.map_or_else(|| NONE.to_owned(), |_| image.repo_digest.to_string()),
        id(image, no_trunc),
        created.map_or_else(|| "N/A".to_owned(), output::ago),
        created.map_or_else(|| "N/A".to_owned(), |time| time.to_string()),
        image.containers.to_string(),
        output::size(image.size),
        "N/A".to_owned(),
        "N/A".to_owned(),
        output::size(image.size),
    ]
}

fn id(image: &Summary, no_trunc: bool) -> String {
    if no_trunc { image.id.to_string() } else { image.id.short() }
}

/// Keeps what was made before or since another image.
fn within(mut images: Vec<Summary>, filters: &[Filter]) -> Result<Vec<Summary>> {
    for filter in filters {
        let (name, newer) = match filter {
            Filter::Before(name) => (name, false),
            Filter::Since(name) => (name, true),
            _ => continue,
        };
        let named = |image: &&Summary| {
            let typed = name.parse::<Reference>().ok();
            let hexadecimal = name.trim_start_matches("sha256:");
            (typed.is_some() && image.reference == typed)
                || (hexadecimal.len() >= 4 && image.id.hex().starts_with(hexadecimal))
        };
        let missing = || Fault::new(Kind::NotFound, format!("no such image: {name}"));
        let made = |image: &Summary| image.created.as_deref().and_then(Time::parse);
        let limit = made(images.iter().find(named).ok_or_else(missing)?);
        images.retain(|image| if newer { made(image) > limit } else { made(image) < limit });
    }
    Ok(images)
}

enum Filter {
    Before(String),
    Since(String),
    Dangling(bool),
    Label(String, Option<String>),
    Reference(String),
}

impl Filter {
    fn parse(text: &str) -> Result<Self> {
        let invalid = || {
            let words = format!("invalid filter {text:?}");
            Fault::new(Kind::InvalidInput, words).hint(
                "use dangling=true|false, label=KEY[=VALUE], reference=PATTERN, before=IMAGE or since=IMAGE",
            )
        };
        let (key, value) = text.split_once('=').ok_or_else(invalid)?;
        match (key, value) {
            ("before", name) => Ok(Self::Before(name.to_owned())),
            ("since", name) => Ok(Self::Since(name.to_owned())),
            ("dangling", "true" | "1") => Ok(Self::Dangling(true)),
            ("dangling", "false" | "0") => Ok(Self::Dangling(false)),
            ("label", label) => {
                let (key, value) =
                    label.split_once('=').map_or((label, None), |(key, value)| (key, Some(value.to_owned())));
                Ok(Self::Label(key.to_owned(), value))
            }
            ("reference", pattern) => Ok(Self::Reference(pattern.to_owned())),
            _ => Err(invalid()),
        }
    }

    fn fits(&self, image: &Summary) -> bool {
        match self {
            // `within` has applied them.
            Self::Before(_) | Self::Since(_) => true,
            Self::Dangling(wanted) => image.reference.as_ref().is_none_or(|r| r.tag().is_none()) == *wanted,
            Self::Label(key, value) => {
                image.labels.get(key).is_some_and(|found| value.as_ref().is_none_or(|value| value == found))
            }
            Self::Reference(pattern) => {
                image.reference.as_ref().is_some_and(|reference| matches(pattern, reference))
            }
        }
    }
}

/// Matches a name in its short or its full form, without or with the tag.
fn matches(pattern: &str, reference: &Reference) -> bool {
    let full = format!("{}/{}", reference.registry(), reference.repository());
    [reference.familiar_repository(), full].iter().any(|repository| {
        glob(pattern.as_bytes(), repository.as_bytes())
            || reference
                .tag()
                .is_some_and(|tag| glob(pattern.as_bytes(), format!("{repository}:{tag}").as_bytes()))
    })
}

/// Matches `*` (no slash) and `?` as Go's `path.Match`.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) if glob(rest, text) => true,
        (Some((b'*', _)), Some((letter, left))) if *letter != b'/' => glob(pattern, left),
        (Some((b'?', rest)), Some((letter, left))) if *letter != b'/' => glob(rest, left),
        (Some((wanted, rest)), Some((letter, left))) if wanted == letter => glob(rest, left),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_go_s() {
        for (pattern, name, fits) in [
            ("redis", "redis:7", true),
            ("redis:7", "redis:7", true),
            ("redis:8", "redis:7", false),
            ("docker.io/library/redis", "redis:7", true),
            ("red*", "redis:7", true),
            ("*", "127.0.0.1:5000/a/b:1", false),
            ("127.0.0.1:5000/*/b", "127.0.0.1:5000/a/b:1", true),
            ("r?dis:?", "redis:7", true),
        ] {
            assert_eq!(matches(pattern, &name.parse().unwrap()), fits, "{pattern} {name}");
        }
    }
}
