//! How the command is linked.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=CC");
    let is = |name: &str, word: &str| env::var(name).is_ok_and(|text| text.split(',').any(|part| part == word));
    // One library less to be found and mapped at each start, for what unwinds the stack after a panic. A static program has it anyway.
    let is_usual = is("PROFILE", "release") && is("CARGO_CFG_TARGET_ENV", "gnu");
    if is_usual
        && env::var("HOST") == env::var("TARGET")
        && !is("CARGO_CFG_TARGET_FEATURE", "crt-static")
        && let Some(archive) = unwinder()
        && let Some(directory) = archive.parent().and_then(Path::to_str)
    {
        println!("cargo::rustc-link-search=native={directory}");
        println!("cargo::rustc-link-lib=static:-bundle=gcc_eh");
    }
}

/// The archive that the C compiler has beside that library; without it the library is used.
fn unwinder() -> Option<PathBuf> {
    let compiler = env::var_os("CC").unwrap_or_else(|| "cc".into());
    let output = Command::new(compiler).arg("-print-file-name=libgcc_eh.a").output().ok()?;
    let path = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    (output.status.success() && path.is_absolute() && path.is_file()).then_some(path)
}
