//! What the fuzzer makes of a `config.json`.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use super::Spec;

/// What is taken is written, and read again as the same; the rules over it are not too many for any of it.
pub(crate) fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let spec = match Spec::from_oci(text) {
        Ok(spec) => spec,
        Err(error) => {
            assert!(error.field().is_some(), "{error}");
            return;
        }
    };
    let _ = crate::spec::check::check(&spec);
    let Ok(document) = spec.to_oci() else { return };
    let again = Spec::from_oci(&document).unwrap_or_else(|error| panic!("{error}\n{document}"));
    assert_eq!(format!("{again:?}"), format!("{spec:?}"));
    assert_eq!(again.to_oci().unwrap(), document);
}
