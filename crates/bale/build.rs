//! Makes the seal the first thing the program does (`bale_sys`, early.rs), and puts the functions of the short commands
//! side by side (`layout.ld`).

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_ARCH").as_deref() == Ok("x86_64") {
        println!("cargo:rustc-link-arg-bins=-Wl,-u,bale_entry,-e,bale_entry");
    }
    let folder = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    println!("cargo:rerun-if-changed=layout.ld");
    println!("cargo:rustc-link-arg-bins=-Wl,-T,{folder}/layout.ld");
    // Where everything is, for `cargo xtask layout`.
    println!("cargo:rerun-if-env-changed=BALE_LINK_MAP");
    if let Ok(map) = std::env::var("BALE_LINK_MAP") {
        println!("cargo:rustc-link-arg-bins=-Wl,-Map,{map}");
    }
}
