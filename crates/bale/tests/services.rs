//! The way of the demo for other images made of Debian packages: nothing in bale knows of redis.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bale_testkit::machine::{Scope, Snapshot};
use bale_testkit::service::{self, Recipe};
use bale_testkit::{Bale, bale, require_root};

/// Loads a recipe's image, and makes a bundle of it that `check` finds no fault with.
fn load_and_bundle(bale: &Bale, recipe: &Recipe) {
    let archive = service::archive(&bale_testkit::cache_dir(), recipe).expect("the image");
    bale.ok(["load", "-i", archive.to_str().expect("utf-8")]);
    bale.ok(["bundle", recipe.name, "./bundle"]);
    bale.ok(["check", "./bundle"]);
}

/// Asks `question` until it is answered, for at most 20 seconds.
fn wait_for<T>(mut question: impl FnMut() -> Option<T>, what: &str) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(answer) = question() {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn end(bale: &Bale, name: &str) {
    bale.ok(["stop", name]);
    assert_eq!(bale.ok(["wait", name]), "0\n");
    bale.ok(["rm", "-v", name]);
}

#[test]
fn nginx_serves_on_the_hosts_network() {
    require_root!();
    let bale = bale!();
    let scope = Scope::below(bale.dir());
    let before = Snapshot::take(&scope);
    load_and_bundle(&bale, &service::nginx());
    bale.ok(["run", "-d", "--name", "web", "--net", "host", "./bundle"]);
    let page = wait_for(|| get("127.0.0.1:8080"), "nginx does not answer");
    assert!(page.ends_with("it works\n"), "{page}");
    let user = bale.ok(["exec", "web", "id", "-u"]);
    assert_eq!(user, "33\n");
    assert!(bale.ok(["logs", "web"]).contains("\"GET / HTTP/1.0\" 200"));
    // SIGQUIT, the image's stop signal, is nginx's graceful end.
    end(&bale, "web");
    before.assert_same(&scope);
}

fn get(address: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut page = String::new();
    stream.read_to_string(&mut page).ok()?;
    Some(page)
}

#[test]
fn postgres_makes_its_data_in_a_volume_and_answers() {
    require_root!();
    let bale = bale!();
    let recipe = service::postgres();
    load_and_bundle(&bale, &recipe);
    bale.ok([
        "run",
        "-d",
        "--name",
        "db",
        "--net",
        "none",
        "-v",
        "pgdata:/var/lib/postgresql/data",
        recipe.name,
    ]);
    let query = |sql: &str| bale.run(["exec", "db", "psql", "-h", "/var/run/postgresql", "-Atc", sql]);
    wait_for(|| (query("select 1").code == 0).then_some(()), "postgres does not answer");
    assert_eq!(query("create table t (n int); insert into t values (41)").code, 0);
    end(&bale, "db");
    // The volume outlives the container.
    bale.ok([
        "run",
        "-d",
        "--name",
        "db",
        "--net",
        "none",
        "-v",
        "pgdata:/var/lib/postgresql/data",
        recipe.name,
    ]);
    wait_for(|| (query("select 1").code == 0).then_some(()), "postgres does not answer again");
    let answer = query("select n + 1 from t");
    assert_eq!(answer.stdout, "42\n", "{answer:?}");
    end(&bale, "db");
    bale.ok(["volume", "rm", "pgdata"]);
}

#[test]
fn busybox_runs_what_it_is_told() {
    require_root!();
    let bale = bale!();
    bale.load_busybox();
    let outcome = bale.run(["run", "--rm", "--net", "none", "busybox", "sh", "-c", "id -u; exit 7"]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (7, "0\n"), "{outcome:?}");
    bale.ok(["bundle", "busybox", "./bundle"]);
    bale.ok(["set", "./bundle", "process.args=[\"echo\", \"from a bundle\"]"]);
    assert_eq!(bale.ok(["run", "--rm", "--net", "none", "./bundle"]), "from a bundle\n");
}
