//! Who is asked whether to stop, by code deep below that does not know whom it works for.

use std::cell::Cell;

type Ask = &'static dyn Fn() -> bool;

thread_local! {
    static ASKED: Cell<Option<Ask>> = const { Cell::new(None) };
}

/// Puts back who was asked before, also when a panic passes.
struct Before(Option<Ask>);

impl Drop for Before {
    fn drop(&mut self) {
        ASKED.set(self.0);
    }
}

/// While `body` runs, [`is_interrupted`] on this thread asks `interrupted`.
pub(crate) fn asking<T>(interrupted: &dyn Fn() -> bool, body: impl FnOnce() -> T) -> T {
    // SAFETY: only the lifetime changes, and the reference outlives its use: it is only in a variable of this thread, from
    // which `Before` takes it before this returns or unwinds, and nobody keeps a copy for longer than a call.
    let ask: Ask = unsafe { std::mem::transmute::<&dyn Fn() -> bool, Ask>(interrupted) };
    let _before = Before(ASKED.replace(Some(ask)));
    body()
}

/// Whether this thread's work is to stop.
pub(crate) fn is_interrupted() -> bool {
    ASKED.get().is_some_and(|ask| ask())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_is_asked_and_nobody_afterwards() {
        assert!(!is_interrupted());
        asking(&|| true, || {
            assert!(is_interrupted());
            asking(&|| false, || assert!(!is_interrupted()));
            assert!(is_interrupted());
            assert!(!std::thread::spawn(is_interrupted).join().unwrap());
            let caught = std::panic::catch_unwind(|| asking(&|| false, || panic!("passes")));
            assert!(caught.is_err() && is_interrupted());
        });
        assert!(!is_interrupted());
    }
}
