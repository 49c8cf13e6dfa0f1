//! Tries the client by hand: `wire resolve|pull|push|tags REFERENCE`.
#![allow(clippy::print_stdout)]

use std::io::Read;
use std::time::Instant;

use bale_fault::{Context, Fault, Kind, Result};
use bale_registry::{Client, Settings};
use bale_spec::image::{Descriptor, Document, media_type};
use bale_spec::{Digest, Reference};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [verb, reference] = arguments.as_slice() else {
        return println!("wire resolve|pull|push|tags REFERENCE");
    };
    if let Err(fault) = run(verb, reference) {
        println!("{}\nhint: {}", fault.chain(), fault.innermost_hint().unwrap_or("none"));
    }
}

fn run(verb: &str, reference: &str) -> Result<()> {
    let client = Client::new(Settings::from_env())?;
    let reference: Reference =
        reference.parse().map_err(|e| Fault::new(Kind::InvalidInput, "read the name").caused_by(e))?;
    let start = Instant::now();
    match verb {
        "push" => push(&client, &reference)?,
        "tags" => println!("{:?}", client.tags(&reference)?),
        verb => {
            let fetched = client.resolve(&reference)?;
            println!("{} {} in {:?}", fetched.digest, fetched.media_type, start.elapsed());
            println!("head: {:?}", client.head(&reference)?.map(|d| d.digest));
            if verb == "pull" {
                pull(&client, &reference, &fetched.bytes)?;
            }
        }
    }
    println!("all in {:?}", start.elapsed());
    Ok(())
}

fn pull(client: &Client, reference: &Reference, bytes: &[u8]) -> Result<()> {
    let Ok(Document::Manifest(manifest)) = Document::parse(bytes, None) else { return Ok(()) };
    println!("config: {} bytes", client.blob_bytes(reference, &manifest.config, 1 << 20)?.len());
    for layer in &manifest.layers {
        let start = Instant::now();
        let mut buffer = vec![0; 1 << 20];
        let mut blob = client.blob(reference, layer, 0)?;
        let mut total = 0;
        while let Ok(length @ 1..) = blob.read(&mut buffer).within(|| "read") {
            total += length;
        }
        let rate = total as f64 / start.elapsed().as_secs_f64() / 1e6;
        println!(
            "{}: {total} of {} bytes in {:?}, {rate:.0} MB/s",
            layer.digest.short(),
            layer.size,
            start.elapsed()
        );
    }
    Ok(())
}

fn push(client: &Client, reference: &Reference) -> Result<()> {
    let layer: Vec<u8> = (0..45_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let config = b"{}".to_vec();
    let mut descriptors = Vec::new();
    for (kind, content) in [(media_type::CONFIG, &config), (media_type::LAYER_GZIP, &layer)] {
        let descriptor = Descriptor::of(kind, content);
        let start = Instant::now();
        let open = || Ok(Box::new(std::io::Cursor::new(content.clone())) as Box<dyn Read + Send>);
        let pushed = client.push_blob(reference, &descriptor, &open, None)?;
        println!("{pushed:?} {} in {:?}", descriptor.digest.short(), start.elapsed());
        descriptors.push(descriptor);
    }
    let manifest = serde_json::json!({"schemaVersion": 2, "mediaType": media_type::MANIFEST,
        "config": descriptors[0], "layers": [descriptors[1]]})
    .to_string();
    let digest = client.push_manifest(reference, media_type::MANIFEST, manifest.as_bytes())?;
    println!("{digest} {}", digest == Digest::of(manifest.as_bytes()));
    Ok(())
}
