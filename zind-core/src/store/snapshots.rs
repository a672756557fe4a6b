//! Unpacked layers, by ChainID: each a directory that overlayfs takes as a layer.
//!
//! `snapshots/<owners>/<algorithm>-<hex>` has `diff`, the layer, and `info`, which says what it is. It is made aside and
//! renamed when it is whole. Its files are not synced one by one: `info` names the run of the kernel in which it was made,
//! and in another run it counts only if it was synced by then; otherwise it is unpacked again from its blob, which is.
#![forbid(unsafe_code)]

use std::fs::{self, DirBuilder};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{
    AtFlags, CWD, FlockOperation, Mode, OFlags, RenameFlags, flock, openat, renameat, renameat_with, unlinkat,
};
use rustix::io::{Errno, retry_on_intr};
use serde_json::{Value, json};

use super::place::{LOCK, Locked, SNAPSHOTS, boot_id, make_dir, remove_open, try_flock};
use super::{Owners, Store};
use crate::copy;
use crate::error::{At, Error, Result, Step};
use crate::image::Digest;
use crate::image::unpack::apply::Unpacked;
use crate::namespace::idmap::IdMap;

pub(super) const DIFF: &str = "diff";
const INFO: &str = "info";
/// Ends the name of what many layers have become together.
pub(super) const MERGED: &str = ".merged";
/// Snapshots that are open at a time.
const AT_ONCE: usize = 64;
/// What begins with this is half made.
const ASIDE: &str = ".zind-";

/// What `info` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Info {
    pub(super) parent: Option<Digest>,
    /// Whose its files are, where the ids of a user namespace are; the name of their directory does not tell.
    pub(super) maps: Option<(Vec<IdMap>, Vec<IdMap>)>,
    pub(super) boot: String,
    pub(super) is_synced: bool,
    /// Bytes of files.
    pub(super) bytes: u64,
    pub(super) entries: u64,
    /// What could not be made as the layer has it.
    pub(super) left: u64,
    pub(super) left_list: Vec<String>,
}

impl Info {
    fn to_bytes(&self) -> Vec<u8> {
        let parent = self.parent.map(|parent| parent.to_string());
        let lines = |maps: &[IdMap]| maps.iter().map(|map| [map.container, map.host, map.size]).collect::<Vec<_>>();
        let maps = self.maps.as_ref().map(|(uid, gid)| [lines(uid), lines(gid)]);
        json!({"zind-snapshot": 1, "parent": parent, "maps": maps, "boot": self.boot, "synced": self.is_synced, "bytes": self.bytes,
            "entries": self.entries, "left": self.left, "left_list": self.left_list})
        .to_string()
        .into_bytes()
    }

    fn parse(bytes: &[u8]) -> Option<Info> {
        let value: Value = serde_json::from_slice(bytes).ok()?;
        if value["zind-snapshot"] != 1 {
            return None;
        }
        let list = value["left_list"].as_array()?.iter().filter_map(|text| text.as_str().map(str::to_owned)).collect();
        Some(Info {
            parent: match &value["parent"] {
                Value::Null => None,
                text => Some(Digest::parse(text.as_str()?).ok()?),
            },
            maps: maps(&value["maps"]),
            boot: value["boot"].as_str()?.to_owned(),
            is_synced: value["synced"].as_bool()?,
            bytes: value["bytes"].as_u64()?,
            entries: value["entries"].as_u64()?,
            left: value["left"].as_u64()?,
            left_list: list,
        })
    }

    /// False: made in another run of the kernel, and who knows what of it reached the disk.
    pub(super) fn is_whole(&self) -> bool {
        self.is_synced || (self.boot == boot_id() && !self.boot.is_empty())
    }
}

/// What is read is written as it was.
#[cfg(any(test, fuzzing))]
pub(super) fn info_again(bytes: &[u8]) {
    if let Some(info) = Info::parse(bytes) {
        assert_eq!(Info::parse(&info.to_bytes()).map(|info| info.to_bytes()), Some(info.to_bytes()));
    }
}

/// A snapshot that is being made. It goes away unless it is put in its place.
#[derive(Debug)]
pub(super) struct Aside {
    path: PathBuf,
    /// Locked, so that nobody takes it for left over.
    dir: OwnedFd,
    is_done: bool,
}

impl Aside {
    /// The directory of the layer, empty.
    pub(super) fn diff(&self) -> Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        retry_on_intr(|| openat(&self.dir, DIFF, flags, Mode::empty())).at(Step::Unpack, "open", self.path.join(DIFF))
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if !self.is_done {
            let _ = remove_open(&self.path, &self.dir);
        }
        // A child of this process may have the descriptor, too.
        let _ = flock(&self.dir, FlockOperation::Unlock);
    }
}

/// How the owners of a snapshot's files are called among directories.
pub(super) fn key(owners: &Owners) -> String {
    match owners {
        Owners::Kept => "kept".to_owned(),
        Owners::Xattr => "xattr".to_owned(),
        Owners::Mapped { uid, gid } => {
            let mut text = String::new();
            for map in [uid, gid] {
                for line in map {
                    text += &format!("{}:{}:{},", line.container, line.host, line.size);
                }
                text.push(';');
            }
            format!("mapped-{}", &Digest::of(text.as_bytes()).hex()[..24])
        }
    }
}

/// The name of a snapshot among its like.
pub(super) fn name(chain: &Digest) -> String {
    format!("{}-{}", chain.algorithm().name(), chain.hex())
}

/// The ChainID that a name stands for.
pub(super) fn chain_of(name: &str) -> Option<Digest> {
    Digest::parse(&name.replacen('-', ":", 1)).ok()
}

impl Store {
    pub(super) fn snapshot_path(&self, chain: &Digest, owners: &Owners) -> PathBuf {
        self.at(SNAPSHOTS).join(key(owners)).join(name(chain))
    }

    /// What is known about a snapshot; none if it is not there, or not whole.
    pub(super) fn snapshot(&self, chain: &Digest, owners: &Owners) -> Option<Info> {
        read_info(&self.snapshot_path(chain, owners)).filter(Info::is_whole)
    }

    /// True if a layer is unpacked, by its ChainID.
    pub fn has_snapshot(&self, chain: &Digest, owners: &Owners) -> bool {
        let Ok(_lock) = self.lock_shared() else { return false };
        self.snapshot(chain, owners).is_some() && self.note(&snapshot_note(chain, owners)).is_ok()
    }

    /// The directories of a layer and of those below it, topmost first. Where many were merged they are one.
    /// Errors: [`Error::State`] if one of them is not unpacked.
    pub(super) fn stack(&self, chain: Option<&Digest>, owners: &Owners) -> Result<Vec<PathBuf>> {
        self.stack_of(chain, owners, true)
    }

    /// The same, each layer by itself.
    pub(super) fn unmerged_stack(&self, chain: &Digest, owners: &Owners) -> Result<Vec<PathBuf>> {
        self.stack_of(Some(chain), owners, false)
    }

    fn stack_of(&self, chain: Option<&Digest>, owners: &Owners, may_be_merged: bool) -> Result<Vec<PathBuf>> {
        let mut stack = Vec::new();
        let mut next = chain.copied();
        while let Some(chain) = next {
            let merged = self.merged_path(&chain, owners);
            if may_be_merged && read_info(&merged).is_some_and(|info| info.is_whole()) {
                stack.push(merged.join(DIFF));
                break;
            }
            let Some(info) = self.snapshot(&chain, owners) else {
                return Err(Error::State(format!("the layer {chain} is not unpacked")));
            };
            stack.push(self.snapshot_path(&chain, owners).join(DIFF));
            if stack.len() > 1000 {
                return Err(Error::State("snapshots refer to each other in a circle".to_owned()));
            }
            next = info.parent;
        }
        Ok(stack)
    }

    pub(super) fn merged_path(&self, chain: &Digest, owners: &Owners) -> PathBuf {
        self.at(SNAPSHOTS).join(key(owners)).join(name(chain) + MERGED)
    }

    /// Begins a snapshot.
    pub(super) fn begin_snapshot(&self, owners: &Owners) -> Result<Aside> {
        let parent = self.at(SNAPSHOTS).join(key(owners));
        let _lock = self.lock_shared()?;
        make_dir(&parent)?;
        let path = parent.join(copy::unused_name());
        let make = |path: &Path| DirBuilder::new().mode(0o700).create(path).at(Step::Unpack, "mkdir", path);
        make(&path)?;
        let dir = open_dir(&path)?;
        try_flock(&dir);
        let aside = Aside { path, dir, is_done: false };
        make(&aside.path.join(DIFF))?;
        Ok(aside)
    }

    /// Puts a snapshot that is whole in its place. If somebody else was faster, theirs stays.
    pub(super) fn end_snapshot(
        &self,
        aside: Aside,
        chain: &Digest,
        parent: Option<&Digest>,
        owners: &Owners,
        unpacked: Unpacked,
    ) -> Result<()> {
        self.put_snapshot(
            aside,
            &self.snapshot_path(chain, owners),
            &snapshot_note(chain, owners),
            parent,
            owners,
            unpacked,
        )
    }

    pub(super) fn put_snapshot(
        &self,
        mut aside: Aside,
        place: &Path,
        note: &str,
        parent: Option<&Digest>,
        owners: &Owners,
        unpacked: Unpacked,
    ) -> Result<()> {
        let info = Info {
            parent: parent.copied(),
            maps: match owners {
                Owners::Mapped { uid, gid } => Some((uid.clone(), gid.clone())),
                _ => None,
            },
            boot: boot_id().to_owned(),
            // Where runs of the kernel have no name, it is made to last at once.
            is_synced: boot_id().is_empty(),
            bytes: unpacked.bytes,
            entries: unpacked.entries,
            left: unpacked.left,
            left_list: unpacked.left_list,
        };
        let file = aside.path.join(INFO);
        fs::write(&file, info.to_bytes()).at(Step::Unpack, "write", &file)?;
        if info.is_synced {
            rustix::fs::syncfs(&aside.dir).at(Step::Unpack, "syncfs", &aside.path)?;
        }
        // What is thrown away may be used by nobody, nor be a fresh one of somebody else by now: nothing comes to its place
        // while the lock is exclusive.
        for exclusive in [false, true] {
            let _lock = self.0.place.lock(LOCK, exclusive)?;
            self.note(note)?;
            loop {
                match renameat_with(CWD, &aside.path, CWD, place, RenameFlags::NOREPLACE) {
                    Ok(()) => {
                        aside.is_done = true;
                        return Ok(());
                    }
                    Err(Errno::EXIST) if look_info(place)?.is_some_and(|info| info.is_whole()) => return Ok(()),
                    // Of another run of the kernel: nobody uses it.
                    Err(Errno::EXIST) if exclusive => self.0.place.throw_away(place)?,
                    Err(Errno::EXIST) => break,
                    Err(errno) => return Err(errno).at(Step::Unpack, "renameat2", place),
                }
            }
        }
        Err(Errno::EXIST).at(Step::Unpack, "renameat2", place)
    }

    /// Locks a snapshot against being collected: shared. None if it is not there.
    pub(super) fn lock_snapshot(&self, chain: &Digest, owners: &Owners) -> Result<Option<OwnedFd>> {
        let path = self.snapshot_path(chain, owners);
        let _lock = self.lock_shared()?;
        if self.snapshot(chain, owners).is_none() {
            return Ok(None);
        }
        let dir = open_dir(&path)?;
        flock(&dir, FlockOperation::LockShared).at(Step::Store, "flock", &path)?;
        Ok(Some(dir))
    }

    /// Syncs snapshots that are older than `age` and were not synced yet, and marks them so.
    pub(super) fn sync_snapshots(&self, age: Duration) -> Result<()> {
        let mut unsynced = Vec::new();
        for (path, _, _) in self.snapshot_dirs()? {
            let Some(info) = read_info(&path).filter(|info| !info.is_synced && info.is_whole()) else { continue };
            let made = fs::metadata(path.join(INFO)).and_then(|meta| meta.modified());
            let is_old = made.is_ok_and(|made| made.elapsed().is_ok_and(|elapsed| elapsed >= age));
            if is_old || age.is_zero() {
                unsynced.push((path, info));
            }
        }
        let top = self.at(SNAPSHOTS);
        for some in unsynced.chunks(AT_ONCE) {
            // Open before the sync: another that comes to the place later is not what was synced.
            let open: Vec<_> = some.iter().filter_map(|(path, info)| Some((open_dir(path).ok()?, info))).collect();
            let dir = fs::File::open(&top).at(Step::Store, "open", &top)?;
            rustix::fs::syncfs(&dir).at(Step::Store, "syncfs", &top)?;
            for (dir, info) in open {
                // Also if it went away meanwhile.
                let _ = mark_synced(&dir, info);
            }
        }
        Ok(())
    }

    /// All directories among the snapshots: path, name of the owners, name.
    pub(super) fn snapshot_dirs(&self) -> Result<Vec<(PathBuf, String, String)>> {
        let mut found = Vec::new();
        let list = |path: &Path| -> Result<Vec<fs::DirEntry>> {
            let entries = fs::read_dir(path).at(Step::Store, "open", path)?;
            entries.map(|entry| entry.at(Step::Store, "getdents64", path)).collect()
        };
        for owners in list(&self.at(SNAPSHOTS))? {
            let key = owners.file_name().to_string_lossy().into_owned();
            for entry in list(&owners.path())? {
                found.push((entry.path(), key.clone(), entry.file_name().to_string_lossy().into_owned()));
            }
        }
        Ok(found)
    }

    /// Removes snapshots that were never finished and whose makers are gone. The lock of the store is held exclusively.
    pub(super) fn sweep_snapshots(&self) -> Result<u64> {
        let mut count = 0;
        for (path, _, name) in self.snapshot_dirs()? {
            if !name.starts_with(ASIDE) {
                continue;
            }
            if let Some(_locked) = open_dir(&path).ok().filter(|dir| try_flock(dir)).map(Locked::new) {
                self.0.place.throw_away(&path)?;
                count += 1;
            }
        }
        Ok(count)
    }

    pub(super) fn lock_shared(&self) -> Result<Locked> {
        self.0.place.lock(LOCK, false)
    }
}

pub(super) fn snapshot_note(chain: &Digest, owners: &Owners) -> String {
    format!("snapshot {}/{}", key(owners), name(chain))
}

/// The maps of users and groups.
fn maps(value: &Value) -> Option<(Vec<IdMap>, Vec<IdMap>)> {
    let number = |value: &Value| value.as_u64().and_then(|number| u32::try_from(number).ok());
    let line = |value: &Value| {
        IdMap { container: number(&value[0])?, host: number(&value[1])?, size: number(&value[2])? }.if_sound()
    };
    let lines = |value: &Value| value.as_array()?.iter().map(line).collect::<Option<Vec<IdMap>>>();
    Some((lines(&value[0])?, lines(&value[1])?))
}

impl Info {
    /// The owners of a snapshot in the directory of that name; none if it does not say so.
    pub(super) fn owners(&self, directory: &str) -> Option<Owners> {
        let mapped = self.maps.clone().map(|(uid, gid)| Owners::Mapped { uid, gid });
        [Some(Owners::Kept), Some(Owners::Xattr), mapped].into_iter().flatten().find(|owners| key(owners) == directory)
    }
}

pub(super) fn read_info(snapshot: &Path) -> Option<Info> {
    Info::parse(&fs::read(snapshot.join(INFO)).ok()?)
}

/// The same, but what cannot be read now is an error.
pub(super) fn look_info(snapshot: &Path) -> Result<Option<Info>> {
    let path = snapshot.join(INFO);
    match fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        result => Ok(Info::parse(&result.at(Step::Collect, "read", &path)?)),
    }
}

/// Notes in a snapshot that was synced that it was. Not if it is another by now than `info` says.
fn mark_synced(dir: &OwnedFd, info: &Info) -> std::io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut bytes = Vec::new();
    fs::File::from(retry_on_intr(|| openat(dir, INFO, flags, Mode::empty()))?).read_to_end(&mut bytes)?;
    if Info::parse(&bytes).as_ref() != Some(info) {
        return Ok(());
    }
    let aside = copy::unused_name();
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = fs::File::from(retry_on_intr(|| openat(dir, aside.as_str(), flags, Mode::from_raw_mode(0o644)))?);
    let bytes = Info { is_synced: true, ..info.clone() }.to_bytes();
    let written = file.write_all(&bytes).and_then(|()| file.sync_all());
    let written = written.and_then(|()| Ok(renameat(dir, aside.as_str(), dir, INFO)?));
    if written.is_err() {
        let _ = unlinkat(dir, aside.as_str(), AtFlags::empty());
    }
    written?;
    Ok(rustix::fs::fsync(dir)?)
}

pub(super) fn open_dir(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    retry_on_intr(|| openat(CWD, path, flags, Mode::empty())).at(Step::Store, "open", path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_have_names_of_their_own() {
        let map = |host| vec![IdMap { container: 0, host, size: 65536 }];
        let mapped = |uid, gid| key(&Owners::Mapped { uid: map(uid), gid: map(gid) });
        assert_ne!(mapped(1, 2), mapped(2, 1));
        assert_eq!(mapped(1, 2), mapped(1, 2));
        assert_eq!(key(&Owners::Kept), "kept");
        let chain = Digest::of(b"x");
        assert_eq!(chain_of(&name(&chain)), Some(chain));
        assert_eq!(chain_of(".zind-1234"), None);
    }

    fn info(boot: &str, entries: u64) -> Info {
        Info {
            parent: None,
            maps: None,
            boot: boot.to_owned(),
            is_synced: false,
            bytes: 5,
            entries,
            left: 0,
            left_list: Vec::new(),
        }
    }

    #[test]
    fn a_stale_snapshot_goes_only_while_nobody_else_comes() {
        let top = std::env::temp_dir().join(format!("zind-test-stale-{}", std::process::id()));
        let store = Store::open(Some(top.clone())).unwrap();
        let chain = Digest::of(b"x");
        let place = store.snapshot_path(&chain, &Owners::Xattr);
        fs::create_dir_all(&place).unwrap();
        fs::write(place.join(INFO), info("another", 1).to_bytes()).unwrap();
        let aside = store.begin_snapshot(&Owners::Xattr).unwrap();
        // Another process is putting something in its place.
        let lock = store.lock_shared().unwrap();
        let maker = std::thread::spawn({
            let store = store.clone();
            move || store.end_snapshot(aside, &chain, None, &Owners::Xattr, Unpacked::default())
        });
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(look_info(&place).unwrap().map(|info| info.boot).as_deref(), Some("another"));
        fs::write(place.join(INFO), info(boot_id(), 7).to_bytes()).unwrap();
        drop(lock);
        maker.join().unwrap().unwrap();
        assert_eq!(look_info(&place).unwrap().unwrap().entries, 7);
        // With nobody there it is replaced.
        fs::write(place.join(INFO), info("another", 1).to_bytes()).unwrap();
        let aside = store.begin_snapshot(&Owners::Xattr).unwrap();
        store.end_snapshot(aside, &chain, None, &Owners::Xattr, Unpacked::default()).unwrap();
        assert_eq!(look_info(&place).unwrap().unwrap().entries, 0);
        fs::remove_dir_all(top).unwrap();
    }

    #[test]
    fn only_what_was_synced_is_marked() {
        let top = std::env::temp_dir().join(format!("zind-test-synced-{}", std::process::id()));
        let (old, place) = (top.join("old"), top.join("place"));
        fs::create_dir_all(&place).unwrap();
        let mine = info(boot_id(), 1);
        fs::write(place.join(INFO), mine.to_bytes()).unwrap();
        let dir = open_dir(&place).unwrap();
        // Another has come to its place.
        fs::rename(&place, &old).unwrap();
        fs::create_dir(&place).unwrap();
        fs::write(place.join(INFO), mine.to_bytes()).unwrap();
        mark_synced(&dir, &mine).unwrap();
        let is_synced = |path: &Path| look_info(path).unwrap().unwrap().is_synced;
        assert!(is_synced(&old) && !is_synced(&place));
        // It says something else than before.
        mark_synced(&open_dir(&place).unwrap(), &info(boot_id(), 2)).unwrap();
        assert!(!is_synced(&place));
        assert_eq!(fs::read_dir(&old).unwrap().count(), 1);
        fs::remove_dir_all(top).unwrap();
    }

    #[test]
    fn info_comes_back() {
        let info = Info {
            parent: Some(Digest::of(b"p")),
            maps: Some((vec![IdMap { container: 0, host: 7, size: 9 }], Vec::new())),
            boot: "b".to_owned(),
            is_synced: false,
            bytes: 5,
            entries: 1,
            left: 1,
            left_list: vec!["x: y".to_owned()],
        };
        assert_eq!(Info::parse(&info.to_bytes()), Some(info.clone()));
        assert!(!info.is_whole());
        assert!(Info { is_synced: true, ..info.clone() }.is_whole());
        assert!(Info { boot: boot_id().to_owned(), ..info }.is_whole());
        assert_eq!(Info::parse(b"{\"zind-snapshot\": 2}"), None);
    }
}
