//! The busybox image, made from the Debian package.

use std::process::Command;

#[test]
fn the_busybox_image_is_an_archive_with_a_layer_that_runs() {
    let archive = bale_testkit::image::busybox();
    let listed = bale_testkit::output_of(Command::new("tar").arg("-tf").arg(&archive)).expect("list");
    let listed = String::from_utf8_lossy(&listed);
    // oci-layout, index.json, three folders and three blobs.
    assert!(
        listed.lines().filter(|line| line.starts_with("blobs/sha256/") && line.len() > 70).count() == 3,
        "{listed}"
    );
    let busybox = archive.parent().expect("folder").join("rootfs/bin/busybox");
    let said = bale_testkit::output_of(Command::new(busybox).args(["echo", "hello"])).expect("run");
    assert_eq!(said, b"hello\n");
}
