//! A network namespace made beside. A test of its own file: it forks, and another test's thread could hold a lock then.

use std::os::fd::{AsFd, OwnedFd};

use bale_sys::ahead::Network;
use bale_sys::{namespace, process};

fn identity(of: impl AsFd) -> (u64, u64) {
    let stat = rustix::fs::fstat(of).expect("fstat of a namespace");
    (stat.st_dev, stat.st_ino)
}

fn own() -> OwnedFd {
    std::fs::File::open("/proc/thread-self/ns/net").expect("/proc/thread-self/ns/net").into()
}

/// Runs in a process with one thread, which libtest's is not.
fn alone(body: impl FnOnce() -> bool) -> bool {
    let (reader, writer) = rustix::pipe::pipe().expect("pipe");
    let child = || u8::from(rustix::io::write(&writer, &[u8::from(body())]).is_err());
    process::in_child(child).expect("fork");
    drop(writer);
    let mut answer = [0_u8];
    rustix::io::read(&reader, &mut answer) == Ok(1) && answer == [1]
}

#[test]
fn a_namespace_is_made_beside_and_joined() {
    assert!(rustix::process::geteuid().is_root(), "this test needs root: it makes a network namespace");
    assert!(alone(|| {
        let before = identity(own());
        // One that nobody wants is waited for as well.
        drop(Network::begin());
        // Whether the thread has begun or not, the other way is open after.
        let left = Network::begin().is_none_or(|network| network.give_up() && network.finish().is_some());
        if left {
            return false;
        }
        let Some(made) = Network::begin().and_then(Network::finish) else { return false };
        let is = identity(&made);
        is != before
            && identity(own()) == before
            && process::one_thread().is_ok()
            && namespace::join(&made, namespace::NEWNET).is_ok()
            && identity(own()) == is
    }));
    // With other threads there could be a lock that nobody gives back.
    let (tell, wait) = std::sync::mpsc::channel::<()>();
    let other = std::thread::spawn(move || wait.recv());
    assert!(Network::begin().is_none());
    drop(tell);
    assert!(other.join().is_ok_and(|end| end.is_err()));
}
