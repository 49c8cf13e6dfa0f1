//! The tree of peers.

use bale_testkit::peers::Peers;

#[test]
fn the_peers_answer() {
    bale_testkit::require_root!();
    let Some(peers) = Peers::find() else { return };
    let said =
        peers.run("for p in skopeo umoci buildah podman dockerd; do $p --version; done; echo $1", ["end"]);
    let said = said.expect("versions");
    for name in ["skopeo", "umoci", "buildah", "podman", "Docker", "end"] {
        assert!(said.contains(name), "{name}: {said}");
    }
}
