//! What the fuzzer makes of an image's users and groups.
#![forbid(unsafe_code)]

use super::Users;

/// `passwd`, and `group` after an empty line: no id is the one that means "leave it as it is".
pub(crate) fn users(text: &str) {
    let (passwd, group) = text.split_once("\n\n").unwrap_or((text, ""));
    let users = Users { passwd: passwd.to_owned(), group: group.to_owned() };
    for line in passwd.lines().take(32) {
        let mut fields = line.split(':');
        let name = fields.next().unwrap_or_default();
        let user = users.user(name);
        assert!(user.is_none_or(|(uid, gid)| uid != u32::MAX && gid != u32::MAX), "{line:?}");
        let uid = fields.nth(1).and_then(|uid| uid.parse().ok()).unwrap_or(0);
        assert_ne!(users.gid_of(uid), Some(u32::MAX), "{line:?}");
        assert!(users.home_of(uid).is_none_or(|home| home.starts_with('/')));
        let groups = users.groups_of(name);
        assert!(groups.windows(2).all(|pair| pair[0] < pair[1]) && !groups.contains(&u32::MAX));
        assert_ne!(users.name_of(uid), Some(""));
    }
    for line in group.lines().take(32) {
        assert_ne!(users.group(line.split(':').next().unwrap_or_default()), Some(u32::MAX), "{line:?}");
    }
}
