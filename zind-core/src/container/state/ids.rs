//! Ids and names.
#![forbid(unsafe_code)]

use crate::error::{At, Error, Result, Step};

/// As ids are shown.
pub(in crate::container) fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// A new id.
pub(in crate::container) fn new_id() -> Result<String> {
    let mut bytes = [0u8; 32];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        let flags = rustix::rand::GetRandomFlags::empty();
        filled += rustix::io::retry_on_intr(|| rustix::rand::getrandom(&mut *rest, flags)).at(
            Step::Container,
            "getrandom",
            "",
        )?;
    }
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

pub(in crate::container) fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// Errors: [`Error::Spec`] for a name that is none.
pub(in crate::container) fn check_name(name: &str) -> Result<()> {
    let mut bytes = name.bytes();
    let is_first = |byte: u8| byte.is_ascii_alphanumeric();
    let is_good = bytes.next().is_some_and(is_first)
        && name.len() <= 128
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    if !is_good {
        return Err(Error::spec(
            "name",
            format!("{name:?} is none: a letter or digit, then up to 127 of letters, digits, \"_\", \".\" and \"-\""),
        ));
    }
    if is_id(name) {
        return Err(Error::spec("name", "has the form of an id"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_names_and_never_paths() {
        for good in ["a", "Web_1.2-x", &"a".repeat(128)] {
            check_name(good).unwrap();
        }
        for bad in ["", ".", "..", "-a", "_a", "a/b", "a b", "a\0", "\u{e9}", &"a".repeat(129), &"ab".repeat(32)] {
            assert!(matches!(check_name(bad), Err(Error::Spec { field: "name", .. })), "{bad}");
        }
        let (one, two) = (new_id().unwrap(), new_id().unwrap());
        assert!(is_id(&one) && one != two);
    }
}
