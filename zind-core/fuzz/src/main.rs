//! libFuzzer around `zind_core::fuzzing`. `run` beside it builds this as it has to be built, and runs it.
#![cfg_attr(feature = "libfuzzer", no_main)]

#[cfg(feature = "libfuzzer")]
mod fuzzer {
    use std::sync::OnceLock;

    use zind_core::fuzzing::{Ground, TARGETS, Target};

    static CHOSEN: OnceLock<(Ground, Target)> = OnceLock::new();

    fn chosen() -> (Ground, Target) {
        let name = std::env::var("ZIND_FUZZ").unwrap_or_default();
        match TARGETS.into_iter().find(|(known, _)| *known == name) {
            Some(target) => (Ground::new(), target),
            None => panic!("ZIND_FUZZ is none of {:?}", TARGETS.map(|(name, _)| name)),
        }
    }

    libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
        let (ground, (_, target)) = CHOSEN.get_or_init(chosen);
        target(ground, bytes);
    });
}

#[cfg(not(feature = "libfuzzer"))]
fn main() {
    eprintln!("this is built and run by zind-core/fuzz/run");
    std::process::exit(2);
}
