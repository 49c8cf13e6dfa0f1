//! `bale version`.

use crate::exit::ExitCode;

use bale_fault::Result;
use bale_spec::image::Platform;
use serde_json::{Value, json};

use super::Context;
use crate::output;
use crate::template::Template;

/// Arguments of `bale version`.
#[derive(clap::Args)]
pub struct Args {
    /// Print json, or a template such as '{{.Version}}'
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

/// Shows the version.
pub fn run(args: Args, context: &Context) -> Result<ExitCode> {
    let facts = [
        ("Version", env!("CARGO_PKG_VERSION").to_owned()),
        ("SpecVersion", bale_spec::runtime::SPEC_VERSION.to_owned()),
        ("Platform", Platform::host().to_string()),
        ("Kernel", rustix::system::uname().release().to_string_lossy().into_owned()),
        ("Root", context.root.to_string_lossy().into_owned()),
        ("Sealed", bale_sys::seal::is_sealed().to_string()),
    ];
    if let Some(format) = args.format {
        let mut told: serde_json::Map<String, Value> =
            facts.iter().map(|(key, value)| ((*key).to_owned(), value.as_str().into())).collect();
        // There is no server; scripts ask docker's for its version.
        for side in ["Client", "Server"] {
            told.insert(side.to_owned(), json!({ "Version": env!("CARGO_PKG_VERSION") }));
        }
        let told = Value::Object(told);
        let text = if format == "json" { told.to_string() } else { Template::parse(&format)?.fill(&told)? };
        output::write(&(text + "\n"))?;
    } else {
        let titles = ["bale", "runtime specification", "platform", "kernel", "root", "sealed"];
        let lines = titles.iter().zip(&facts[..5]).map(|(title, (_, value))| format!("{title:<23}{value}\n"));
        output::write(&lines.collect::<String>())?;
    }
    Ok(ExitCode::SUCCESS)
}
