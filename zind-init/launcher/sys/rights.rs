//! What this process may do: ids, capabilities, keyrings, filters, Landlock.

use super::Result;

/// Who opens files, and whose they become.
pub fn setfsuid(uid: u32) {
    let _ = call!(SETFSUID, uid);
}

/// The serial number of our session keyring.
pub fn session_keyring() -> Result {
    const KEYCTL_GET_KEYRING_ID: usize = 0;
    const KEY_SPEC_SESSION_KEYRING: i32 = -3;
    call!(KEYCTL, KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0)
}

/// Its serial number.
pub fn new_session_keyring() -> Result {
    const KEYCTL_JOIN_SESSION_KEYRING: usize = 1;
    call!(KEYCTL, KEYCTL_JOIN_SESSION_KEYRING, 0)
}

pub fn setgroups(groups: &[u32]) -> Result {
    call!(SETGROUPS, groups.len(), groups.as_ptr())
}

pub fn group_count() -> Result {
    call!(GETGROUPS, 0, 0)
}

pub fn getgroups(groups: &mut [u32]) -> Result {
    call!(GETGROUPS, groups.len(), groups.as_mut_ptr())
}

/// Real, effective and saved.
pub fn group_ids() -> Result<[u32; 3]> {
    let mut ids = [0u32; 3];
    call!(GETRESGID, &raw mut ids[0], &raw mut ids[1], &raw mut ids[2])?;
    Ok(ids)
}

/// The same of the user.
pub fn user_ids() -> Result<[u32; 3]> {
    let mut ids = [0u32; 3];
    call!(GETRESUID, &raw mut ids[0], &raw mut ids[1], &raw mut ids[2])?;
    Ok(ids)
}

pub fn setgid(gid: u32) -> Result {
    call!(SETRESGID, gid, gid, gid)
}

pub fn setuid(uid: u32) -> Result {
    call!(SETRESUID, uid, uid, uid)
}

pub fn prctl(option: i32, a: usize, b: usize) -> Result {
    call!(PRCTL, option, a, b, 0, 0)
}

const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

/// Effective, permitted, inheritable.
pub fn capget() -> Result<[u64; 3]> {
    let header = [CAPABILITY_VERSION_3, 0];
    let mut data = [0u32; 6];
    call!(CAPGET, header.as_ptr(), data.as_mut_ptr())?;
    let join = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    Ok([join(data[0], data[3]), join(data[1], data[4]), join(data[2], data[5])])
}

pub fn capset(effective: u64, permitted: u64, inheritable: u64) -> Result {
    let header = [CAPABILITY_VERSION_3, 0];
    let low = |set: u64| set as u32;
    let high = |set: u64| (set >> 32) as u32;
    let data = [low(effective), low(permitted), low(inheritable), high(effective), high(permitted), high(inheritable)];
    call!(CAPSET, header.as_ptr(), data.as_ptr())
}

/// Installs a filter; with `SECCOMP_FILTER_FLAG_NEW_LISTENER` in `flags` the result is a descriptor.
pub fn seccomp(filter: &[u64], flags: u64) -> Result {
    #[repr(C)]
    struct Program(u16, *const u64);
    const SET_MODE_FILTER: usize = 1;
    let program = Program(filter.len() as u16, filter.as_ptr());
    call!(SECCOMP, SET_MODE_FILTER, flags, &raw const program)
}

/// A set of rules for the rights of `struct landlock_ruleset_attr`: of the file system, of the network, scopes. Kernels that
/// know less of them take it all the same where the rest is zero.
pub fn landlock_create_ruleset(handled: &[u64; 3]) -> Result<i32> {
    call!(LANDLOCK_CREATE_RULESET, handled.as_ptr(), size_of_val(handled), 0).map(|fd| fd as i32)
}

/// Lets something below a path pass.
pub fn landlock_add_path(set: i32, access: u64, place: i32) -> Result {
    #[repr(C, packed)]
    struct PathBeneath(u64, i32);
    const PATH_BENEATH: usize = 1;
    let rule = PathBeneath(access, place);
    call!(LANDLOCK_ADD_RULE, set, PATH_BENEATH, &raw const rule, 0)
}

/// Lets something with a port pass.
pub fn landlock_add_port(set: i32, access: u64, port: u64) -> Result {
    const NET_PORT: usize = 2;
    let rule = [access, port];
    call!(LANDLOCK_ADD_RULE, set, NET_PORT, rule.as_ptr(), 0)
}

pub fn landlock_restrict_self(set: i32, flags: u64) -> Result {
    call!(LANDLOCK_RESTRICT_SELF, set, flags)
}
