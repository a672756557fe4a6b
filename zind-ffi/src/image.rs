//! `zind_store` and `zind_image`: images on disk, from and to registries and archives, and made from containers.
//!
//! What has many options takes them as JSON, and what has many fields gives them as JSON.

use std::ffi::{CString, c_char, c_void};
use std::time::Duration;

use serde_json::Value;
use zind_core::{
    ArchiveFormat, CommitOptions, Compression, Error, Image, ImageConfig, Layers, Progress, ProgressEvent,
    ProgressKind, Rootfs, RunConfig, Store,
};

use crate::copy::zind_root;
use crate::error::{zind_error, zind_status};
use crate::exit::{Target, zind_exit};
use crate::guard::{Failure, Out, Outcome, free, guard, handle, quiet};
use crate::image_options::{self, Fields};
use crate::layers::zind_layers;
use crate::process::{question, zind_interrupted, zind_process};
use crate::spec::{set, zind_spec};
use crate::strings::{c_string, give_string, list, optional_path, optional_text, owned, path, text};

/// Images and their unpacked layers in a directory, which any number of processes use at once.
pub struct zind_store(pub(crate) Store);

/// An image of a store: what was known about it when it was looked up.
pub struct zind_image {
    pub(crate) image: Image,
    id: CString,
    digest: CString,
}

impl zind_image {
    pub(crate) fn new(image: Image) -> zind_image {
        let (id, digest) = (c_string(image.id().to_string()), c_string(image.digest().to_string()));
        zind_image { image, id, digest }
    }
}

/// What is being done. Numbers are never reused, and new ones come at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum zind_progress_kind {
    /// Something that this header does not know.
    Other = 0,
    /// A blob comes from a registry.
    Download = 1,
    /// A blob goes to a registry.
    Upload = 2,
    /// A layer is unpacked.
    Unpack = 3,
    /// A blob comes from an archive or a directory.
    Load = 4,
    /// A blob goes to an archive or a directory.
    Save = 5,
    /// Digests are checked.
    Check = 6,
    /// Files become a layer, or a tar.
    Pack = 7,
    /// A step of a build begins; its number is the layer's.
    Build = 8,
    /// What nothing refers to is removed; the bytes done are those given back.
    Collect = 9,
}

/// How far one piece of work has come.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct zind_progress_event {
    /// sizeof(zind_progress_event) of the library: later ones have more fields at the end.
    pub struct_size: usize,
    /// A zind_progress_kind.
    pub kind: i32,
    /// Which layer, counted from 0; -1 for what is no layer.
    pub layer: i32,
    /// How many layers there are.
    pub layers: i32,
    /// The blob, where its name is known; else NULL. Only for the length of the call.
    pub digest: *const c_char,
    /// Bytes done, as they are stored or sent.
    pub done: u64,
    /// Bytes in all; -1 if that is not known.
    pub total: i64,
}

/// Hears of long work, on the thread of the call, and is asked several times a second whether to stop. event: what went on;
/// NULL for the mere question. data: the caller's. Anything but 0 stops the work with ZIND_STATUS_INTERRUPTED, and nothing is
/// left half done.
pub type zind_progress = Option<unsafe extern "C" fn(event: *const zind_progress_event, data: *mut c_void) -> i32>;

/// A function of the caller's as a [`Progress`].
pub(crate) struct Told {
    hear: zind_progress,
    data: *mut c_void,
    stopped: bool,
}

impl Told {
    pub(crate) fn new(hear: zind_progress, data: *mut c_void) -> Told {
        Told { hear, data, stopped: false }
    }

    fn tell(&mut self, event: *const zind_progress_event) {
        let Some(hear) = self.hear else { return };
        if !self.stopped {
            // SAFETY: the caller gave the function together with its data, for the length of the call.
            self.stopped = unsafe { hear(event, self.data) } != 0;
        }
    }
}

impl Progress for Told {
    fn step(&mut self, event: &ProgressEvent<'_>) {
        let digest = event.digest.map(|digest| c_string(digest.to_string()));
        let number = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
        let kind = match event.kind {
            ProgressKind::Download => zind_progress_kind::Download,
            ProgressKind::Upload => zind_progress_kind::Upload,
            ProgressKind::Unpack => zind_progress_kind::Unpack,
            ProgressKind::Load => zind_progress_kind::Load,
            ProgressKind::Save => zind_progress_kind::Save,
            ProgressKind::Check => zind_progress_kind::Check,
            ProgressKind::Pack => zind_progress_kind::Pack,
            ProgressKind::Build => zind_progress_kind::Build,
            ProgressKind::Collect => zind_progress_kind::Collect,
            _ => zind_progress_kind::Other,
        };
        self.tell(&zind_progress_event {
            struct_size: size_of::<zind_progress_event>(),
            kind: kind as i32,
            layer: event.layer.map_or(-1, |(layer, _)| number(layer)),
            layers: event.layer.map_or(0, |(_, of)| number(of)),
            digest: digest.as_ref().map_or(std::ptr::null(), |digest| digest.as_ptr()),
            done: event.done,
            total: event.total.map_or(-1, |total| i64::try_from(total).unwrap_or(i64::MAX)),
        });
    }

    fn interrupted(&mut self) -> bool {
        self.tell(std::ptr::null());
        self.stopped
    }
}

/// The store in a directory, which is made if it is missing.
/// place: NULL for /var/lib/zind (root) or $XDG_DATA_HOME/zind (an ordinary user).
/// store: receives the handle; free it with zind_store_free().
/// Returns also ZIND_STATUS_STATE (it belongs to somebody else or to a later version), _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_store_open(
    place: *const c_char,
    store: *mut *mut zind_store,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let store = Out::handle(store, "store")?;
            store.give(zind_store(Store::open(optional_path(place).map(Into::into))?));
            Ok(())
        })
    }
}

/// The same with other bounds on foreign archives than the usual ones.
/// limits: NULL, or an object with some of "entries", "file_size", "layer_size", "ratio", "ratio_from", "depth", "header", "document"
/// and "zstd_window_log", numbers. What goes beyond is ZIND_STATUS_IMAGE.
/// Returns as zind_store_open(), and ZIND_STATUS_SPEC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_store_open_with(
    place: *const c_char,
    limits: *const c_char,
    store: *mut *mut zind_store,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let store = Out::handle(store, "store")?;
            let limits = image_options::limits(optional_text(limits, "limits")?)?;
            store.give(zind_store(Store::open_with(optional_path(place).map(Into::into), limits)?));
            Ok(())
        })
    }
}

/// Frees a handle; the store stays. store: NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_store_free(store: *mut zind_store) {
    // SAFETY: the header's demand.
    unsafe { free(store) }
}

/// The body of a function that gives an image.
///
/// # Safety
/// As for [`guard`]; `store` is NULL or live, `image` NULL or writable.
unsafe fn give_image(
    store: *const zind_store,
    image: *mut *mut zind_image,
    err: *mut *mut zind_error,
    find: impl FnOnce(&Store) -> Outcome<Image>,
) -> zind_status {
    // SAFETY: the caller's promise.
    unsafe {
        guard(err, || {
            let image = Out::handle(image, "image")?;
            image.give(zind_image::new(find(&handle(store, "store")?.0)?));
            Ok(())
        })
    }
}

/// The body of a function that gives text.
///
/// # Safety
/// As for [`guard`]; `store` is NULL or live, `json` NULL or writable.
unsafe fn give_json(
    store: *const zind_store,
    json: *mut *mut c_char,
    err: *mut *mut zind_error,
    find: impl FnOnce(&Store) -> Outcome<Value>,
) -> zind_status {
    // SAFETY: the caller's promise.
    unsafe {
        guard(err, || {
            let json = Out::handle(json, "json")?;
            give_string(json, find(&handle(store, "store")?.0)?.to_string());
            Ok(())
        })
    }
}

/// An image by its name, its id or digest ("sha256:..."), or the first 4 or more digits of one.
/// image: receives the handle; free it with zind_image_free().
/// Returns also ZIND_STATUS_NOT_FOUND, _STATE (the digits fit several), _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_store_image(
    store: *const zind_store,
    name: *const c_char,
    image: *mut *mut zind_image,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { give_image(store, image, err, |store| Ok(store.image(text(name, "name")?)?)) }
}

/// All images, in the order in which they came, as a JSON array of objects with "id", "digest", "tags", "size" (bytes of the
/// blobs), "created" and "platform". json: receives a string; free it with zind_string_free(). Returns also ZIND_STATUS_SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_store_images_json(
    store: *const zind_store,
    json: *mut *mut c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { give_json(store, json, err, |store| Ok(store.images()?.iter().map(Image::summary_json).collect())) }
}

/// The image that a start means: one of the store by name or id, else one that is pulled, as far as the policy lets it.
/// options: as of zind_store_pull(); the policy is "missing" if it is not given.
/// image: receives the handle; free it with zind_image_free(). Returns as zind_store_pull().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_store_get(
    store: *const zind_store,
    name: *const c_char,
    options: *const c_char,
    progress: zind_progress,
    data: *mut c_void,
    image: *mut *mut zind_image,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        give_image(store, image, err, |store| {
            let options = image_options::pull(optional_text(options, "options")?, "missing")?;
            Ok(store.get(text(name, "name")?, &options, &mut Told::new(progress, data))?)
        })
    }
}

/// Takes an image from its registry. What is here already is not fetched again, and what was interrupted is gone on with.
/// reference: "debian:12", "registry:5000/path/name:tag", "name@sha256:...".
/// options: NULL or a JSON object with any of "policy" ("always" if it is not given, "missing", "never"), "platform", "unpack", "foreign_layers",
/// "auth" ("anonymous", ["user", "password"], {"bearer": token}, {"identity": token}), "auth_file", "tls_verify", "cert_dir",
/// "mirrors" ({"docker.io": ["mirror:5000/hub", ["other:5000", true]]}; with true as if "tls_verify" was off), "proxy",
/// "timeout" (seconds), "retries", "parallel". "auth" is for the registry alone, not for mirrors.
/// progress, data: NULL, or hears of it. image: receives the handle; free it with zind_image_free().
/// Returns also ZIND_STATUS_REGISTRY, _IMAGE, _NOT_FOUND, _SPEC, _INTERRUPTED, _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_store_pull(
    store: *const zind_store,
    reference: *const c_char,
    options: *const c_char,
    progress: zind_progress,
    data: *mut c_void,
    image: *mut *mut zind_image,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        give_image(store, image, err, |store| {
            let options = image_options::pull(optional_text(options, "options")?, "always")?;
            Ok(store.pull(text(reference, "reference")?, &options, &mut Told::new(progress, data))?)
        })
    }
}

/// Gives an image to a registry. reference: its name there. options: NULL or a JSON object with any of "chunk_size" (bytes),
/// "mount_from" (a repository), "extra_tags", and the options of zind_store_pull() about registries.
/// Returns also ZIND_STATUS_REGISTRY, _IMAGE, _SPEC, _INTERRUPTED, _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_store_push(
    store: *const zind_store,
    image: *const zind_image,
    reference: *const c_char,
    options: *const c_char,
    progress: zind_progress,
    data: *mut c_void,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let store = &handle(store, "store")?.0;
            let options = image_options::push(optional_text(options, "options")?)?;
            let reference = text(reference, "reference")?;
            let mut told = Told::new(progress, data);
            Ok(store.push(&handle(image, "image")?.image, reference, &options, &mut told)?)
        })
    }
}

/// Takes the images of an archive: an OCI image-layout directory or tar, or what docker save wrote, also compressed.
/// json: receives what was taken, as zind_store_images_json(); free it with zind_string_free().
/// Returns also ZIND_STATUS_IMAGE (broken or hostile: nothing was taken), _INTERRUPTED, _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_store_load(
    store: *const zind_store,
    archive: *const c_char,
    progress: zind_progress,
    data: *mut c_void,
    json: *mut *mut c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        give_json(store, json, err, |store| {
            let images = store.load(path(archive, "archive")?, &mut Told::new(progress, data))?;
            Ok(images.iter().map(Image::summary_json).collect())
        })
    }
}

/// Writes images with their names into an archive, which must not exist yet.
/// images: an array that ends with NULL. format: "oci" (a tar), "oci-dir" (a directory) or "docker" (for docker load).
/// Returns also ZIND_STATUS_SPEC, _IMAGE, _INTERRUPTED, _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_store_save(
    store: *const zind_store,
    images: *const *const zind_image,
    archive: *const c_char,
    format: *const c_char,
    progress: zind_progress,
    data: *mut c_void,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let store = &handle(store, "store")?.0;
            if images.is_null() {
                return Err(Failure::Null("images"));
            }
            let mut all = Vec::new();
            while let Some(image) = (*images.add(all.len())).as_ref() {
                all.push(image.image.clone());
            }
            let format = match text(format, "format")? {
                "oci" => ArchiveFormat::OciArchive,
                "oci-dir" => ArchiveFormat::OciDirectory,
                "docker" => ArchiveFormat::DockerArchive,
                _ => return Err(Error::spec("format", "is \"oci\", \"oci-dir\" or \"docker\"").into()),
            };
            Ok(store.save(&all, path(archive, "archive")?, format, &mut Told::new(progress, data))?)
        })
    }
}

/// Makes an image of one layer of a root file system: a directory, or a tar (also compressed), as mmdebstrap makes them.
/// tag: its name; NULL for none. config: NULL or a JSON object: {"Cmd": ["bash"], "Env": ["A=1"], "User": "web"}.
/// image: receives the handle; free it with zind_image_free(). Returns also ZIND_STATUS_IMAGE, _SPEC, _INTERRUPTED, _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_store_import_rootfs(
    store: *const zind_store,
    source: *const c_char,
    tag: *const c_char,
    config: *const c_char,
    progress: zind_progress,
    data: *mut c_void,
    image: *mut *mut zind_image,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        give_image(store, image, err, |store| {
            let mut whole = ImageConfig::new();
            if let Some(config) = optional_text(config, "config")? {
                whole.config = RunConfig::of_json(&image_options::parse("config", config)?)?;
            }
            let (source, tag) = (path(source, "source")?, optional_text(tag, "tag")?);
            Ok(store.import_rootfs(source, tag, whole, &mut Told::new(progress, data))?)
        })
    }
}

/// Makes an image by steps whose results are kept, so that only those run that have to.
/// description: a JSON object with "from" (a name; none: from nothing), "pull" (a policy), "tags", "cache", "compression" and
/// "steps", an array of objects with one of "run" (an array: program and arguments; beside it "env", "network" ("none", "host"),
/// "user", "cwd", "timeout" in seconds, "capabilities" (an array of names; none: what Docker gives root)), "copy" ([source, target];
/// beside it "owner"), "env" and "label" (objects), "workdir", "user", "entrypoint" and "cmd" (arrays), "expose", "volume",
/// "stop_signal". A zind_builder has mounts, id maps and all other options, too.
/// image: receives the handle; free it with zind_image_free().
/// steps: NULL, or receives what became of the steps, as a JSON array of objects with "what", "cached", "diff_id" and "time"
/// (seconds); free it with zind_string_free().
/// Returns also ZIND_STATUS_FAILED (a program did not exit with 0), _SPEC, _NOT_FOUND, _INTERRUPTED, _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_store_build(
    store: *const zind_store,
    description: *const c_char,
    progress: zind_progress,
    data: *mut c_void,
    image: *mut *mut zind_image,
    steps: *mut *mut c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let image = Out::handle(image, "image")?;
            let steps = if steps.is_null() { None } else { Some(Out::handle(steps, "steps")?) };
            let store = &handle(store, "store")?.0;
            let mut told = Told::new(progress, data);
            let description = image_options::parse("description", text(description, "description")?)?;
            let (builder, options) = image_options::build(store, description, &mut told)?;
            let built = builder.commit(&options, &mut told)?;
            if let Some(steps) = steps {
                give_string(steps, built.steps_json().to_string());
            }
            image.give(zind_image::new(built.image));
            Ok(())
        })
    }
}

/// Gives an image one more name; another image that has it loses it. Returns also ZIND_STATUS_SPEC, _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_store_tag(
    store: *const zind_store,
    image: *const zind_image,
    name: *const c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { guard(err, || Ok(handle(store, "store")?.0.tag(&handle(image, "image")?.image, text(name, "name")?)?)) }
}

/// Takes a name away, or all names with an id. An image without names is gone; its blobs go with zind_store_gc_json().
/// Returns also ZIND_STATUS_NOT_FOUND, _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_store_remove(
    store: *const zind_store,
    name: *const c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { guard(err, || Ok(handle(store, "store")?.0.remove(text(name, "name")?)?)) }
}

/// Removes what no image, no container and no zind_layers has. json: receives an object with "blobs", "snapshots", "leftovers"
/// and "bytes"; free it with zind_string_free(). Returns also ZIND_STATUS_SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_store_gc_json(
    store: *const zind_store,
    json: *mut *mut c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { give_json(store, json, err, |store| Ok(store.gc()?.to_json())) }
}

/// The same, heard of and stopped by `progress`. Returns also ZIND_STATUS_INTERRUPTED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_store_gc_with_json(
    store: *const zind_store,
    progress: zind_progress,
    data: *mut c_void,
    json: *mut *mut c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { give_json(store, json, err, |store| Ok(store.gc_with(&mut Told::new(progress, data))?.to_json())) }
}

/// Checks every digest and every unpacked file. json: receives an array of what is broken, objects with "what", "rule", "cure"
/// and "images"; free it with zind_string_free(). Returns also ZIND_STATUS_INTERRUPTED, _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_store_verify_json(
    store: *const zind_store,
    progress: zind_progress,
    data: *mut c_void,
    json: *mut *mut c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        give_json(store, json, err, |store| {
            let faults = store.verify(&mut Told::new(progress, data))?;
            Ok(faults.iter().map(zind_core::Fault::to_json).collect())
        })
    }
}

/// What the store takes on disk, in bytes. json: receives an object with "blobs", "snapshots", "partial", "unused" and "images",
/// an array of objects with "id", "tags", "size", "unique" and "unpacked"; free it with zind_string_free().
/// Returns also ZIND_STATUS_SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_store_usage_json(
    store: *const zind_store,
    json: *mut *mut c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { give_json(store, json, err, |store| Ok(store.usage()?.to_json())) }
}

/// The same, stopped by `progress`. Returns also ZIND_STATUS_INTERRUPTED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_store_usage_with_json(
    store: *const zind_store,
    progress: zind_progress,
    data: *mut c_void,
    json: *mut *mut c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { give_json(store, json, err, |store| Ok(store.usage_with(&mut Told::new(progress, data))?.to_json())) }
}

/// The digest of the image's configuration: what Docker calls its id. Borrowed from the image; NULL for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_image_id(image: *const zind_image) -> *const c_char {
    // SAFETY: the header's demand.
    let image = unsafe { image.as_ref() };
    quiet(std::ptr::null(), || image.map_or(std::ptr::null(), |image| image.id.as_ptr()))
}

/// The digest of the image's manifest: what registries know it by. Borrowed from the image; NULL for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_image_digest(image: *const zind_image) -> *const c_char {
    // SAFETY: the header's demand.
    let image = unsafe { image.as_ref() };
    quiet(std::ptr::null(), || image.map_or(std::ptr::null(), |image| image.digest.as_ptr()))
}

/// All of an image: what zind_store_images_json() has of it, "layers", "history", and "config", the document of the image-spec.
/// json: receives a string; free it with zind_string_free(). Returns also ZIND_STATUS_IMAGE, _NOT_FOUND, _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_image_json(
    image: *const zind_image,
    json: *mut *mut c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let json = Out::handle(json, "json")?;
            give_string(json, handle(image, "image")?.image.to_json()?.to_string());
            Ok(())
        })
    }
}

/// The root file system of an image for reading: nothing in it can be changed, nothing is mounted on the host. The image stays
/// in its store as long as this is open. root: receives the handle; free it with zind_root_free().
/// Returns also ZIND_STATUS_IMAGE, _INTERRUPTED, _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_image_mount(
    image: *const zind_image,
    progress: zind_progress,
    data: *mut c_void,
    root: *mut *mut zind_root,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let root = Out::handle(root, "root")?;
            root.give(zind_root(handle(image, "image")?.image.mount(&mut Told::new(progress, data))?));
            Ok(())
        })
    }
}

pub(crate) fn compression(name: Option<&str>) -> Outcome<Compression> {
    let Some(name) = name else { return Ok(Compression::None) };
    let unknown = || Error::spec("compression", format!("{name:?} is none of \"none\", \"gzip\", \"zstd\""));
    Ok(Compression::from_name(name).ok_or_else(unknown)?)
}

/// Writes the root file system of an image as a tar to a file that does not exist yet.
/// method: "gzip", "zstd", "none"; NULL is "none". Returns also ZIND_STATUS_IMAGE, _SPEC, _INTERRUPTED, _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_image_export(
    image: *const zind_image,
    file: *const c_char,
    method: *const c_char,
    progress: zind_progress,
    data: *mut c_void,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let method = compression(optional_text(method, "method")?)?;
            let image = &handle(image, "image")?.image;
            Ok(image.export(path(file, "file")?, method, &mut Told::new(progress, data)).map(drop)?)
        })
    }
}

/// Frees a handle; the image stays in its store. image: NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_image_free(image: *mut zind_image) {
    // SAFETY: the header's demand.
    unsafe { free(image) }
}

/// An image as root of a container. What it says of its program (arguments, variables, user, directory) fills in what is not
/// set: arguments of the caller's come after its entrypoint, in place of its command.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_image(
    spec: *mut zind_spec,
    image: *const zind_image,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            spec.rootfs = Rootfs::Image(handle(image, "image")?.image.clone());
            Ok(())
        })
    }
}

/// What comes before the arguments, in place of the image's entrypoint, and without arguments of its command, too.
/// argv: an array that ends with NULL; an empty one is no entrypoint.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_entrypoint(
    spec: *mut zind_spec,
    argv: *const *const c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            spec.entrypoint = Some(owned(list(argv, "argv")?));
            Ok(())
        })
    }
}

/// Makes layers over an image: as zind_layers_create(), but containers run as the image says, and the image stays in its store
/// as long as dir is there. The ids are those of containers that are made by default.
/// layers: receives the handle; free it with zind_layers_free(). Returns also ZIND_STATUS_STATE, _IMAGE, _INTERRUPTED, _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_layers_create_over(
    dir: *const c_char,
    image: *const zind_image,
    progress: zind_progress,
    data: *mut c_void,
    layers: *mut *mut zind_layers,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let layers = Out::handle(layers, "layers")?;
            let (image, mut told) = (&handle(image, "image")?.image, Told::new(progress, data));
            let made = Layers::create_over(path(dir, "dir")?, image, &zind_core::IdMaps::ByPrivilege, &mut told)?;
            layers.give(zind_layers(made));
            Ok(())
        })
    }
}

/// # Safety
/// `options` is NULL or a string.
pub(crate) unsafe fn commit_options(options: *const c_char) -> Outcome<CommitOptions> {
    // SAFETY: the caller's promise.
    let text = unsafe { optional_text(options, "options")? };
    let mut fields = Fields::new("options", text)?;
    let options = image_options::commit(&mut fields)?;
    fields.end()?;
    Ok(options)
}

/// Makes an image of everything that was changed in layers: one layer over their image, or, over plain directories, all of it.
/// store: where it goes; NULL for that of the image below. options: NULL or a JSON object with any of "tags", "config", "author",
/// "message", "created" (RFC 3339) and "compression" ("gzip", "zstd", "none").
/// image: receives the handle; free it with zind_image_free(). Returns also ZIND_STATUS_IMAGE, _SPEC, _INTERRUPTED, _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_layers_commit(
    layers: *const zind_layers,
    store: *const zind_store,
    options: *const c_char,
    progress: zind_progress,
    data: *mut c_void,
    image: *mut *mut zind_image,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let image = Out::handle(image, "image")?;
            let (layers, options) = (&handle(layers, "layers")?.0, commit_options(options)?);
            let store = match store.as_ref() {
                Some(store) => store.0.clone(),
                None => match layers.image()? {
                    Some(image) => image.store().clone(),
                    None => return Err(Failure::Null("store")),
                },
            };
            image.give(zind_image::new(layers.commit(&store, &options, &mut Told::new(progress, data))?));
            Ok(())
        })
    }
}

/// Writes the present state of layers, with all that lies below, as a tar: as zind_image_export().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_layers_export(
    layers: *const zind_layers,
    file: *const c_char,
    method: *const c_char,
    progress: zind_progress,
    data: *mut c_void,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let method = compression(optional_text(method, "method")?)?;
            let layers = &handle(layers, "layers")?.0;
            Ok(layers.export(path(file, "file")?, method, &mut Told::new(progress, data)).map(drop)?)
        })
    }
}

/// Makes an image of what a container changed, whether it still runs or has ended: one layer over the image it was started
/// from. Its changes must go to a directory (zind_spec_set_overlay()). options: as of zind_layers_commit().
/// image: receives the handle; free it with zind_image_free(). Returns also ZIND_STATUS_STATE, _IMAGE, _INTERRUPTED, _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_process_commit(
    process: *const zind_process,
    options: *const c_char,
    progress: zind_progress,
    data: *mut c_void,
    image: *mut *mut zind_image,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let image = Out::handle(image, "image")?;
            let (process, options) = (&handle(process, "process")?.0, commit_options(options)?);
            image.give(zind_image::new(process.commit(&options, &mut Told::new(progress, data))?));
            Ok(())
        })
    }
}

/// Asks the program to end, by its image's stop signal or SIGTERM, and ends the whole container when timeout_ms are over.
/// exit: NULL, or begin with ZIND_EXIT_INIT. Returns also ZIND_STATUS_SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_process_stop(
    process: *const zind_process,
    timeout_ms: u32,
    exit: *mut zind_exit,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { zind_process_stop_interruptible(process, timeout_ms, None, std::ptr::null_mut(), exit, err) }
}

/// As zind_process_stop(), and asks a function of the caller's whether to stop waiting, as zind_process_wait_interruptible(). The program
/// was asked to end then, and may still do so.
/// Returns also ZIND_STATUS_INTERRUPTED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_process_stop_interruptible(
    process: *const zind_process,
    timeout_ms: u32,
    interrupted: zind_interrupted,
    data: *mut c_void,
    exit: *mut zind_exit,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let exit = Target::optional(exit, "exit")?;
            let patience = Duration::from_millis(u64::from(timeout_ms));
            let ended = handle(process, "process")?.0.stop(patience, &mut question(interrupted, data))?;
            if let Some(exit) = exit {
                exit.put(ended.into());
            }
            Ok(())
        })
    }
}
