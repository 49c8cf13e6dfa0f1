//! The whole way: image, registry, pull, bundle, check, run, PONG.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::proof;
use super::registry::{Registry, free_port};
use super::stage::Stage;
use crate::run::{Result, Runner, fail};

/// The port that everybody expects of redis.
pub const REDIS_PORT: u16 = 6379;

/// Starts the registry and pushes the image to it. Returns the image's name there.
pub fn publish(stage: &mut Stage, archive: &Path) -> Result<String> {
    stage.title("a registry on the loopback, and the image in it");
    let port = stage.timed("docker-registry started", Registry::start)?;
    let image = format!("127.0.0.1:{port}/redis:7");
    fs::hard_link(archive, stage.work().join("redis-image.tar"))?;
    stage.bale(&["load", "-i", "redis-image.tar"])?;
    stage.bale(&["tag", "demo/redis:7", &image])?;
    stage.bale(&["push", &image])?;
    stage.bale(&["rmi", "demo/redis:7", &image])?;
    Ok(image)
}

/// Goes from the image's name to a bundle, and from the bundle to a redis that answers.
pub fn image_to_running_redis(stage: &mut Stage, image: &str) -> Result<()> {
    stage.title("from the image's name to a bundle");
    stage.bale(&["pull", image])?;
    stage.bale(&["images"])?;
    stage.bale(&["bundle", image, "./redis"])?;
    stage.bale(&["check", "./redis"])?;

    stage.title("the bundle runs, on the host's network");
    let port = redis_port(stage)?;
    if port != REDIS_PORT {
        set_port(stage, "./redis", port)?;
    }
    stage.bale(&["run", "-d", "--name", "redis", "--net", "host", "./redis"])?;
    pong(stage, "redis", port)?;
    value_round_trip(stage, port)?;
    stage.bale(&["ps"])?;
    stage.bale(&["logs", "redis"])?;
    stage.bale(&["exec", "redis", "redis-cli", "-p", &port.to_string(), "info", "keyspace"])?;
    end(stage, "redis")
}

/// Runs the image without a bundle of the user's, as it is done day by day.
pub fn straight_from_the_image(stage: &mut Stage, image: &str) -> Result<()> {
    stage.title("the same straight from the image: its user, its volume, its working directory");
    let port = redis_port(stage)?;
    let text = port.to_string();
    let mut words = vec!["run", "-d", "--name", "straight", "--net", "host", "--memory", "256m", image];
    if port != REDIS_PORT {
        words.extend(["--bind", "127.0.0.1", "--port", &text]);
    }
    stage.bale(&words)?;
    pong(stage, "straight", port)?;
    value_round_trip(stage, port)?;
    stage.bale(&["exec", "straight", "sh", "-c", "id; pwd; ls -ldn /data"])?;
    end(stage, "straight")
}

/// Chooses redis's port: 6379 if nobody has it.
pub fn redis_port(stage: &Stage) -> Result<u16> {
    if TcpListener::bind((Ipv4Addr::UNSPECIFIED, REDIS_PORT)).is_ok() {
        return Ok(REDIS_PORT);
    }
    let port = free_port()?;
    stage.remark(&format!("port {REDIS_PORT} is taken on this machine: this redis gets {port} instead"));
    Ok(port)
}

/// Adds redis's port to a bundle's command line.
pub fn set_port(stage: &mut Stage, bundle: &str, port: u16) -> Result<()> {
    stage.bale(&["set", bundle, "process.args+=--port", &format!("process.args+={port}")]).map(drop)
}

/// Waits for redis's PONG on the host's `port` and proves that it comes from the container `name`.
pub fn pong(stage: &mut Stage, name: &str, port: u16) -> Result<()> {
    let text = port.to_string();
    let ping = ["-h", "127.0.0.1", "-p", &text, "ping"];
    // Redis needs a moment to listen; the call that counts is the one that is shown.
    let mut quiet = stage.command("redis-cli", &ping);
    let answers = |runner: &mut Runner| Ok((runner.run(&mut quiet)?.code == 0).then_some(()));
    if stage.runner.until(Duration::from_secs(10), answers)?.is_none() {
        stage.look("bale", &["logs", name])?;
    }
    let answer = stage.run("redis-cli", &ping)?;
    if answer.stdout.trim() != "PONG" {
        return fail(format!("redis said {:?}, not PONG", answer.stdout));
    }
    let proof = proof::of_listener(init_pid(stage, name)?, port, 1000)?;
    stage.remark(&format!("proof: {proof}"));
    Ok(())
}

/// Sets a value and reads it back.
pub fn value_round_trip(stage: &mut Stage, port: u16) -> Result<()> {
    let text = port.to_string();
    stage.run("redis-cli", &["-p", &text, "set", "carried-by", "bale"])?;
    let read = stage.run("redis-cli", &["-p", &text, "get", "carried-by"])?;
    if read.stdout.trim() == "bale" { Ok(()) } else { fail(format!("redis gave back {:?}", read.stdout)) }
}

/// Stops and removes a container.
pub fn end(stage: &mut Stage, name: &str) -> Result<()> {
    stage.bale(&["stop", name])?;
    stage.bale(&["rm", "-v", name])?;
    Ok(())
}

/// Asks `bale inspect` for the pid of a container's first process.
fn init_pid(stage: &mut Stage, name: &str) -> Result<u32> {
    let mut inspect = stage.command("bale", &["inspect", name]);
    let told = stage.runner.run(&mut inspect)?.success()?;
    let document: Value = serde_json::from_str(&told.stdout)?;
    let pid = document[0]["State"]["Pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
    pid.filter(|pid| *pid > 0).map_or_else(|| fail(format!("`bale inspect {name}` tells no State.Pid")), Ok)
}
