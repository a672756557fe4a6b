//! Who the payload is: numbers for names, and what the caller may do.
#![forbid(unsafe_code)]

use std::os::unix::fs::MetadataExt;

use crate::error::{At, Error, Result, Step};
use crate::rootfs::users::Users;
use crate::security::capabilities::CapSet;
use crate::spec::{Spec, User};

/// What the calling thread may do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    /// `CAP_SYS_ADMIN` is in force.
    pub(crate) admin: bool,
    /// `CAP_MKNOD` is in force.
    pub(crate) may_make_nodes: bool,
    /// It is in the initial user namespace.
    pub(crate) initial_user_namespace: bool,
}

/// `/proc/<pid>/ns/user` of the initial user namespace: `PROC_USER_INIT_INO` in the kernel.
const INITIAL_USER_NAMESPACE: u64 = 0xEFFF_FFFD;

impl Caller {
    pub(crate) fn now() -> Result<Caller> {
        let sets = rustix::thread::capabilities(None).at(Step::Call, "capget", "")?;
        let effective = CapSet(sets.effective.bits());
        let namespace = std::fs::metadata("/proc/thread-self/ns/user").map(|meta| meta.ino());
        Ok(Caller {
            admin: effective.contains(CapSet::SYS_ADMIN),
            may_make_nodes: effective.contains(CapSet::MKNOD),
            initial_user_namespace: namespace.is_ok_and(|inode| inode == INITIAL_USER_NAMESPACE),
        })
    }
}

/// User and groups as numbers of the container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    /// `None`: unchanged.
    pub(crate) user: Option<(u32, u32)>,
    /// `None`: unchanged.
    pub(crate) groups: Option<Vec<u32>>,
    /// The groups are not asked for, but those that the image's database gives to the user.
    pub(crate) groups_by_membership: bool,
    /// The user's directory, where the root is of an image.
    pub(crate) home: Option<String>,
}

/// The container's user database, read when it is first needed.
struct Database<'a> {
    read: &'a dyn Fn() -> Result<Users>,
    users: Option<Users>,
}

impl Database<'_> {
    fn users(&mut self) -> Result<&Users> {
        if self.users.is_none() {
            self.users = Some((self.read)()?);
        }
        self.users.as_ref().ok_or_else(|| Error::spec("user", "has no database"))
    }

    /// Numbers first, names second: a line of the image's passwd must not turn "1000" into root (CVE-2016-3697).
    fn user(&mut self, name: &str) -> Result<(u32, u32)> {
        let (user, wanted_group) = match name.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (name, None),
        };
        let (uid, default_gid) = match number(user)? {
            Some(uid) if uid == 0 || wanted_group.is_some() => (uid, 0),
            Some(uid) => (uid, self.users()?.gid_of(uid).unwrap_or(0)),
            None => self.users()?.user(user).ok_or_else(|| {
                let rule =
                    format!("{user:?} is not in the container's /etc/passwd; give it by number, as in \"1000:1000\"");
                Error::spec("user", rule)
            })?,
        };
        let gid = wanted_group.map_or(Ok(default_gid), |name| self.group(name))?;
        Ok((uid, gid))
    }

    fn group(&mut self, name: &str) -> Result<u32> {
        match number(name)? {
            Some(gid) => Ok(gid),
            None => self.users()?.group(name).ok_or_else(|| {
                Error::spec("groups", format!("{name:?} is not in the container's /etc/group; give it by number"))
            }),
        }
    }
}

/// Names to numbers.
pub(crate) fn resolve(spec: &Spec) -> Result<Identity> {
    resolve_by(spec, &|| Users::of(&spec.rootfs))
}

/// The same by another database, which is read if it is needed.
pub(crate) fn resolve_by(spec: &Spec, read: &dyn Fn() -> Result<Users>) -> Result<Identity> {
    let mut database = Database { read, users: None };
    let user = match &spec.user {
        None => (!spec.is_low_level()).then_some((0, 0)),
        Some(User::Ids(uid, Some(gid))) => Some((*uid, *gid)),
        Some(User::Ids(0, None)) => Some((0, 0)),
        Some(User::Ids(uid, None)) => Some((*uid, database.users()?.gid_of(*uid).unwrap_or(0))),
        Some(User::Name(name)) => Some(database.user(name)?),
    };
    let mut groups = match &spec.groups {
        None => (!spec.is_low_level()).then(Vec::new),
        Some(names) => Some(names.iter().map(|name| database.group(name)).collect::<Result<Vec<u32>>>()?),
    };
    let (mut home, mut groups_by_membership) = (None, false);
    if let (true, Some((uid, gid))) = (spec.of_image, user) {
        let users = database.users()?;
        home = users.home_of(uid).map(str::to_owned);
        let group_is_given = match &spec.user {
            Some(User::Ids(_, gid)) => gid.is_some(),
            Some(User::Name(name)) => name.contains(':'),
            None => false,
        };
        // As docker does: whoever names a group gets that one only.
        if spec.groups.is_none() && !group_is_given && uid != 0 {
            let mut found = users.name_of(uid).map(|name| users.groups_of(name)).unwrap_or_default();
            found.retain(|other| *other != gid);
            groups_by_membership = !found.is_empty();
            groups = Some(found);
        }
    }
    Ok(Identity { user, groups, groups_by_membership, home })
}

/// The number, if the text is one; an error if it is one that is no id (CVE-2024-40635).
fn number(text: &str) -> Result<Option<u32>> {
    if text.is_empty() {
        return Err(Error::spec("user", "has an empty part"));
    }
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse::<u32>() {
        Ok(id) if id != u32::MAX => Ok(Some(id)),
        _ => Err(Error::spec("user", format!("{text} is no id: ids go up to 4294967294"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(text: &str) -> Result<Option<(u32, u32)>> {
        let spec = Spec { user: Some(User::Name(text.into())), ..Spec::new(["true"]) };
        resolve(&spec).map(|identity| identity.user)
    }

    #[test]
    fn numbers_and_names() {
        assert_eq!(user("1000:1000").unwrap(), Some((1000, 1000)));
        assert_eq!(user("root").unwrap(), Some((0, 0)));
        assert_eq!(user("nobody").unwrap(), Some((65534, 65534)));
        assert_eq!(user("nobody:tty").unwrap(), Some((65534, 5)));
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in ["4294967295", "4294967296", "99999999999999999999", "mallory", "", "root:", ":0", "root:nogrp"] {
            assert!(user(bad).is_err(), "{bad}");
        }
    }
}
