//! Makes the seal the first thing the program does (`bale_sys`, early.rs).

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_ARCH").as_deref() == Ok("x86_64") {
        println!("cargo:rustc-link-arg-bins=-Wl,-u,bale_entry,-e,bale_entry");
    }
}
