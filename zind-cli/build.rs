//! How the command is linked.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is = |name: &str, word: &str| env::var(name).is_ok_and(|text| text.split(',').any(|part| part == word));
    // At a fixed address: nearly eight thousand addresses are settled once, not at each start, where they took 0.9 ms of twenty. Its
    // stack, heap and libraries are where nobody knows all the same. Sanitizers and static programs are linked as they want to be.
    if is("PROFILE", "release") && !is("CARGO_CFG_TARGET_FEATURE", "crt-static") {
        println!("cargo::rustc-link-arg-bins=-no-pie");
    }
}
