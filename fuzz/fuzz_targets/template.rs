#![no_main]
#![allow(dead_code, reason = "only a part of each file is used")]

#[path = "../../crates/bale/src/fuzz.rs"]
mod fuzz;
#[path = "bale/runc.rs"]
mod runc;
#[path = "../../crates/bale/src/template/mod.rs"]
mod template;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::template(data));
