//! Compiles the launcher with the same compiler as the rest, for the same target, without a C library.

use std::env;
use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=launcher");
    println!("cargo::rerun-if-changed=src");
    let target = env::var("TARGET").expect("cargo sets TARGET");
    assert!(
        target.starts_with("x86_64-") && target.contains("-linux"),
        "zind runs on x86_64 Linux; the launcher has no system calls for {target}"
    );
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("launcher");
    let status = Command::new(env::var_os("RUSTC").expect("cargo sets RUSTC"))
        .args(["--crate-name", "zind_init_launcher", "--crate-type", "bin", "--edition", "2024"])
        .args(["--target", &target])
        .args(["-C", "panic=abort", "-C", "opt-level=s", "-C", "lto=fat", "-C", "codegen-units=1"])
        .args(["-C", "relocation-model=static", "-C", "target-feature=+crt-static", "-C", "strip=symbols"])
        // Overflow checks and the like would only bring in text that nobody could read: there is no stderr.
        .args(["-C", "overflow-checks=off", "-C", "debug-assertions=off", "-C", "force-unwind-tables=no"])
        .args(["-C", "link-arg=-nostartfiles", "-C", "link-arg=-nostdlib", "-C", "link-arg=-static"])
        // One page-aligned segment each for code and data: the fewer pages, the fewer faults at each start.
        .args(["-C", "link-arg=-Wl,--build-id=none,-z,norelro,-z,noseparate-code,--gc-sections"])
        .arg("-o")
        .arg(&out)
        .arg("launcher/main.rs")
        // What the user sets for the library (sanitizers, coverage) cannot work in a program without std.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .status()
        .expect("the compiler can be run");
    assert!(status.success(), "the launcher does not compile");
}
