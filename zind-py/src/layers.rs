//! `zind.Layers`: the calls behind it; its types are put together in `_layers.py`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use pyo3::prelude::*;
use zind_core::{Change, Metadata, Result, Snapshot};

use crate::errors::detached;
use crate::images::{CommitTuple, Image, Store, Told, Watch, commit_options, compression, pack_tuple, watched};

/// type, mode, uid, gid, size, mtime_ns, device, target
pub(crate) type MetadataTuple = (&'static str, u32, u32, u32, u64, i64, Option<(u32, u32)>, Option<OsString>);
/// kind, path, old, new
pub(crate) type ChangeTuple = (&'static str, OsString, Option<MetadataTuple>, Option<MetadataTuple>);
/// name, parent, nanoseconds since 1970
pub(crate) type SnapshotTuple = (String, Option<String>, u64);

/// A directory of layers.
#[pyclass(frozen, module = "zind._zind")]
pub(crate) struct Layers(pub(crate) zind_core::Layers);

impl Layers {
    fn call<T: Send>(&self, py: Python<'_>, body: impl FnOnce(&zind_core::Layers) -> Result<T> + Send) -> PyResult<T> {
        detached(py, |_| body(&self.0))
    }
}

#[pymethods]
impl Layers {
    #[staticmethod]
    fn create(py: Python<'_>, dir: PathBuf, base: Vec<PathBuf>, volatile: bool) -> PyResult<Layers> {
        let make = || -> Result<zind_core::Layers> {
            let layers = zind_core::Layers::create(dir, base)?;
            if volatile {
                layers.set_volatile(true)?;
            }
            Ok(layers)
        };
        detached(py, |_| make()).map(Layers)
    }

    #[staticmethod]
    fn create_over(
        py: Python<'_>,
        dir: PathBuf,
        image: &Image,
        volatile: bool,
        uid_map: Option<Bound<'_, PyAny>>,
        gid_map: Option<Bound<'_, PyAny>>,
        watch: Watch,
    ) -> PyResult<Layers> {
        let maps = crate::options::id_maps(py, (uid_map, gid_map))?;
        let make = |told: &mut Told| -> Result<zind_core::Layers> {
            let layers = zind_core::Layers::create_over(dir, &image.0, &maps, told)?;
            if volatile {
                layers.set_volatile(true)?;
            }
            Ok(layers)
        };
        watched(py, watch, make).map(Layers)
    }

    fn image(&self, py: Python<'_>) -> PyResult<Option<Image>> {
        self.call(py, |layers| layers.image()).map(|image| image.map(Image))
    }

    fn commit(&self, py: Python<'_>, store: Option<&Store>, options: CommitTuple, watch: Watch) -> PyResult<Image> {
        let options = commit_options(py, options)?;
        let layers = &self.0;
        let work = |told: &mut Told| {
            let own = match store {
                Some(_) => None,
                None => layers.image()?.map(|image| image.store().clone()),
            };
            let other = zind_core::Error::spec("store", "is needed: the layers do not lie on an image");
            let store = store.map(|store| &store.0).or(own.as_ref()).ok_or(other)?;
            layers.commit(store, &options, told)
        };
        watched(py, watch, work).map(Image)
    }

    fn export(&self, py: Python<'_>, path: PathBuf, name: &str, watch: Watch) -> PyResult<(u64, u64, u64, u64)> {
        let compression = compression(py, name)?;
        watched(py, watch, |told| self.0.export(&path, compression, told)).map(pack_tuple)
    }

    #[staticmethod]
    fn open(py: Python<'_>, dir: PathBuf) -> PyResult<Layers> {
        detached(py, |_| zind_core::Layers::open(dir)).map(Layers)
    }

    fn dir(&self) -> OsString {
        self.0.dir().as_os_str().to_owned()
    }

    fn upper(&self, py: Python<'_>) -> PyResult<OsString> {
        self.call(py, |layers| layers.upper().map(PathBuf::into_os_string))
    }

    fn base(&self, py: Python<'_>) -> PyResult<Vec<OsString>> {
        let base = self.call(py, zind_core::Layers::base)?;
        Ok(base.into_iter().map(PathBuf::into_os_string).collect())
    }

    fn is_volatile(&self, py: Python<'_>) -> PyResult<bool> {
        self.call(py, zind_core::Layers::is_volatile)
    }

    fn set_volatile(&self, py: Python<'_>, volatile: bool) -> PyResult<()> {
        self.call(py, |layers| layers.set_volatile(volatile))
    }

    fn snapshot(&self, py: Python<'_>, name: &str) -> PyResult<()> {
        self.call(py, |layers| layers.snapshot(name))
    }

    fn restore(&self, py: Python<'_>, name: &str) -> PyResult<()> {
        self.call(py, |layers| layers.restore(name))
    }

    fn remove(&self, py: Python<'_>, name: &str) -> PyResult<()> {
        self.call(py, |layers| layers.remove(name))
    }

    fn snapshots(&self, py: Python<'_>) -> PyResult<Vec<SnapshotTuple>> {
        let list = self.call(py, zind_core::Layers::snapshots)?;
        Ok(list.into_iter().map(snapshot_tuple).collect())
    }

    fn diff(&self, py: Python<'_>, since: Option<&str>) -> PyResult<Vec<ChangeTuple>> {
        let changes = self.call(py, |layers| layers.diff(since))?;
        Ok(changes.into_iter().map(change_tuple).collect())
    }

    fn clone_to(&self, py: Python<'_>, dir: PathBuf) -> PyResult<Layers> {
        self.call(py, |layers| layers.clone_to(dir)).map(Layers)
    }

    fn delete(&self, py: Python<'_>) -> PyResult<()> {
        self.call(py, zind_core::Layers::delete)
    }
}

pub(crate) fn snapshot_tuple(snapshot: Snapshot) -> SnapshotTuple {
    let time = snapshot.time.duration_since(UNIX_EPOCH).unwrap_or_default();
    (snapshot.name, snapshot.parent, u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}

pub(crate) fn change_tuple(change: Change) -> ChangeTuple {
    (change.kind.name(), change.path.into_os_string(), change.old.map(metadata_tuple), change.new.map(metadata_tuple))
}

fn metadata_tuple(meta: Metadata) -> MetadataTuple {
    let target = meta.target.map(PathBuf::into_os_string);
    (meta.file_type.name(), meta.mode, meta.uid, meta.gid, meta.size, meta.mtime_ns, meta.device, target)
}
