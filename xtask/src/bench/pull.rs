//! `bench pull`: a registry on the loopback, an image of 45 MB, every run on a new file system.
//!
//! All state of client and daemon is new in every run; daemons are up before the clock starts; the registry's work is
//! not in the processor time, but takes its share of the machine.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bale_testkit::output_of;

use super::disk::{Daemon, Disk, Group, Used};
use super::inside::{OWN, PREPARED};
use super::measure::{Samples, Table, time, verdict};
use crate::demo::free_port;
use crate::run::Result;
use crate::say;

/// One contender's measurements.
#[derive(Debug, Default)]
struct Row {
    wall: Samples,
    cpu: Samples,
    peak: Samples,
}

impl Row {
    fn add(&mut self, used: Used) {
        self.wall.add(used.wall.as_secs_f64());
        self.cpu.add(used.cpu_s);
        self.peak.add(used.peak_mib);
    }
}

/// A way to pull: client start to end on a new file system.
type Contender = (&'static str, fn(&Disk, &Group, &str) -> Result<Used>);

const CONTENDERS: [Contender; 4] =
    [("bale", bale), ("skopeo + umoci", skopeo_umoci), ("podman", podman), ("ctr", ctr)];

/// Measures and prints.
pub fn main(rounds: usize) -> Result<()> {
    let (_registry, image) = registry()?;
    let mut rows: Vec<Row> = CONTENDERS.iter().map(|_| Row::default()).collect();
    let [mut bale_bundle, mut umoci_bundle] = [Samples::default(), Samples::default()];
    for _ in 0..rounds {
        for ((name, pull), row) in CONTENDERS.iter().zip(&mut rows) {
            let disk = Disk::fresh()?;
            let group = Group::new(&format!("pull-{}", name.split(' ').next().unwrap_or(name)))?;
            row.add(pull(&disk, &group, &image)?);
        }
        bale_bundle.add_ms(bundle_with_bale(&image)?);
        umoci_bundle.add_ms(bundle_with_umoci(&image)?);
    }
    print(rounds, &rows);
    say(&format!("\nimage present to a self-contained bundle, {rounds} rounds, median in ms"));
    let mut table = Table::new(&["", "ms"]);
    table.row(vec!["bale bundle".into(), format!("{:.0}", bale_bundle.median())]);
    table.row(vec!["umoci unpack".into(), format!("{:.0}", umoci_bundle.median())]);
    table.print();
    verdict("bundle, bale against umoci", bale_bundle.median() / umoci_bundle.median(), 1.0, "x umoci");
    Ok(())
}

fn print(rounds: usize, rows: &[Row]) {
    say(&format!("\npull + unpack, {rounds} rounds, median"));
    let mut table = Table::new(&["", "wall s", "min..max", "CPU s", "peak memory MiB"]);
    for ((name, _), row) in CONTENDERS.iter().zip(rows) {
        let range = format!("{:.2}..{:.2}", row.wall.quantile(0.0), row.wall.quantile(1.0));
        let [wall, cpu] = [&row.wall, &row.cpu].map(|samples| format!("{:.2}", samples.median()));
        table.row(vec![(*name).into(), wall, range, cpu, format!("{:.0}", row.peak.median())]);
    }
    table.print();
    let best = rows[1..].iter().map(|row| row.wall.median()).fold(f64::INFINITY, f64::min);
    verdict("pull, bale against the fastest peer", rows[0].wall.median() / best, 1.0, "x");
    verdict("peak memory of a pull", rows[0].peak.quantile(1.0), 64.0, "MiB");
}

/// Starts a registry with the image in it; the image is pushed by skopeo.
fn registry() -> Result<(Daemon, String)> {
    let own = Path::new(OWN);
    let port = free_port()?;
    let config = own.join("registry.yml");
    let data = own.join("registry");
    let text = format!(
        "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\n\
         http:\n  addr: 127.0.0.1:{port}\n",
        data.display()
    );
    fs::write(&config, text)?;
    let mut command = Command::new("docker-registry");
    command.arg("serve").arg(&config);
    let listens = || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok();
    let daemon = Daemon::start(&mut command, &own.join("registry.log"), listens)?;
    let image = format!("127.0.0.1:{port}/s:1");
    let mut push = Command::new("skopeo");
    push.args(["copy", "--insecure-policy", "--dest-tls-verify=false"]);
    push.arg(format!("oci-archive:{PREPARED}/pull.tar")).arg(format!("docker://{image}"));
    output_of(&mut push)?;
    Ok((daemon, image))
}

fn bale(disk: &Disk, group: &Group, image: &str) -> Result<Used> {
    let mut command = group.command(&format!("{OWN}/bin/bale"));
    command.arg("--root").arg(disk.path("bale")).args(["pull", image]);
    group.measure(&mut command)
}

fn skopeo_umoci(disk: &Disk, group: &Group, image: &str) -> Result<Used> {
    let script = "skopeo copy -q --insecure-policy --src-tls-verify=false docker://$1 oci:$2/oci:s && \
        umoci unpack --image $2/oci:s $2/bundle";
    let mut command = group.command("sh");
    command.args(["-c", script, "sh", image]).arg(disk.path(""));
    group.measure(&mut command)
}

fn podman(disk: &Disk, group: &Group, image: &str) -> Result<Used> {
    let mut command = group.command("podman");
    command.arg("--root").arg(disk.path("podman")).args([
        "--runroot",
        "/run/bench/podman",
        "--storage-driver",
        "overlay",
    ]);
    command.args(["pull", "-q", "--tls-verify=false", image]);
    group.measure(&mut command)
}

fn ctr(disk: &Disk, group: &Group, image: &str) -> Result<Used> {
    let socket = Path::new(OWN).join("containerd.sock");
    let _daemon = Daemon::containerd(&mut group.command("containerd"), &disk.path("containerd"), &socket)?;
    let mut command = group.command("ctr");
    command.arg("--address").arg(&socket).args(["images", "pull", "--plain-http", image]);
    group.measure(&mut command)
}

fn bundle_with_bale(image: &str) -> Result<Duration> {
    let disk = Disk::fresh()?;
    let bale = || {
        let mut command = Command::new(format!("{OWN}/bin/bale"));
        command.arg("--root").arg(disk.path("bale"));
        command
    };
    time(bale().args(["pull", image]))?;
    time(bale().args(["bundle", image]).arg(disk.path("bundle")))
}

fn bundle_with_umoci(image: &str) -> Result<Duration> {
    let disk = Disk::fresh()?;
    let layout = format!("{}:s", disk.path("oci").display());
    let mut copy = Command::new("skopeo");
    copy.args(["copy", "-q", "--insecure-policy", "--src-tls-verify=false"]);
    time(copy.arg(format!("docker://{image}")).arg(format!("oci:{layout}")))?;
    time(Command::new("umoci").args(["unpack", "--image", &layout]).arg(disk.path("bundle")))
}
