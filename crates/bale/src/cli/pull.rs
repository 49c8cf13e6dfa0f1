//! `bale pull`.

use crate::exit::ExitCode;

use bale_engine::{Engine, Policy, PullOptions, Pulled, Quiet};
use bale_fault::{Kind, Result};
use bale_spec::Reference;

use super::Context;
use crate::progress::{Direction, Show, Stream};
use crate::{exit, interrupt, output};

/// Arguments of `bale pull`.
#[derive(clap::Args)]
pub struct Args {
    /// Image, as name[:tag] or name@digest
    #[arg(value_name = "IMAGE")]
    name: String,
    /// Platform to pull, such as linux/arm64
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
    /// Print the image's name only
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    registry: RegistryArgs,
}

/// How the registry is talked to.
#[derive(clap::Args)]
pub struct RegistryArgs {
    /// Check the registry's certificate; with =false plain http is allowed too
    #[arg(long, value_name = "BOOL", default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    tls_verify: bool,
    /// Host of a token service that may get the credentials although it is not the registry's
    #[arg(long, value_name = "HOST", env = "BALE_TRUST_REALM", value_delimiter = ',')]
    trust_realm: Vec<String>,
}

impl RegistryArgs {
    /// Makes the settings for a registry.
    pub fn settings(&self, registry: &str) -> bale_engine::RegistrySettings {
        let mut settings = bale_engine::RegistrySettings::from_env();
        if !self.tls_verify {
            settings.insecure.push(registry.to_owned());
        }
        settings.trusted_realms.clone_from(&self.trust_realm);
        settings
    }
}

/// Pulls an image from a registry.
pub fn run(args: Args, context: &Context) -> Result<ExitCode> {
    let reference = parse_name(&args.name)?;
    let options = PullOptions {
        platform: parse_platform(args.platform.as_deref())?,
        policy: Policy::Always,
        registry: args.registry.settings(reference.registry()),
        cancel: interrupt::watch()?,
    };
    let engine = Engine::open(&context.root)?;
    let pulled = if args.quiet {
        engine.pull(&reference, &options, &mut Quiet)
    } else {
        if reference.tag() == Some("latest") && !args.name.ends_with(":latest") {
            output::write("Using default tag: latest\n")?;
        }
        engine.pull(&reference, &options, &mut Show::new(Direction::Pull, Stream::Stdout))
    };
    let pulled = match pulled {
        Err(fault) if fault.kind() == Kind::Interrupted => return Ok(interrupted(&fault)),
        other => other?,
    };
    if !args.quiet {
        output::write(&status(&reference, &pulled))?;
    }
    output::write(&format!("{reference}\n"))?;
    Ok(ExitCode::SUCCESS)
}

fn status(reference: &Reference, pulled: &Pulled) -> String {
    let status = if pulled.changed { "Downloaded newer image" } else { "Image is up to date" };
    format!("Digest: {}\nStatus: {status} for {}\n", pulled.digest, reference.familiar())
}

/// Ends as a shell shows a process that Ctrl-C ended.
pub fn interrupted(fault: &bale_fault::Fault) -> ExitCode {
    exit::report(fault);
    ExitCode::from(130)
}

/// Reads an image name.
pub fn parse_name(name: &str) -> Result<Reference> {
    name.parse().map_err(|e: bale_spec::reference::InvalidReference| {
        bale_fault::Fault::new(Kind::InvalidInput, e.to_string())
    })
}

/// Reads `--platform`.
pub fn parse_platform(text: Option<&str>) -> Result<Option<bale_spec::image::Platform>> {
    let parsed =
        text.map(|text| text.parse().map_err(|e: String| bale_fault::Fault::new(Kind::InvalidInput, e)));
    parsed.transpose()
}
