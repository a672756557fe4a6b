//! What the fuzzer makes of the file `state` of a directory of layers.
#![forbid(unsafe_code)]

use super::state::{NONE, State};

/// What is taken is written as it was, and everything in it stands on the ground.
pub(crate) fn state(bytes: &[u8]) {
    let Ok(mut state) = State::parse(bytes) else { return };
    assert_eq!(State::parse(&state.encode()).as_ref(), Ok(&state));
    let chain = state.chain(state.top);
    assert!(!chain.is_empty() && state.depth(state.top) > chain.len() && !chain.contains(&NONE));
    let needed = state.needed();
    assert!(chain.iter().all(|layer| needed.contains(layer)));
    let parents = state.parents.len();
    state.forget_the_unneeded();
    assert!(state.parents.len() <= parents);
    assert_eq!(State::parse(&state.encode()), Ok(state));
}
