//! `zind_builder`: an image by steps, with everything that a start may ask for in those that run.

use std::ffi::{c_char, c_void};

use zind_core::{Builder, Command};

use crate::error::{zind_error, zind_status};
use crate::guard::{Failure, Out, free, guard, handle, handle_mut};
use crate::image::{Told, commit_options, zind_image, zind_progress, zind_store};
use crate::spec::zind_spec;
use crate::strings::{give_string, list, optional_text, path, text};

/// A description of an image: what it is made from, and the steps. Nothing happens before zind_builder_commit().
pub struct zind_builder(Builder);

/// A new description without steps.
/// base: the image it is made from, in the same store; NULL for nothing. builder: receives the handle; free it with
/// zind_builder_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_builder_new(
    store: *const zind_store,
    base: *const zind_image,
    builder: *mut *mut zind_builder,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let builder = Out::handle(builder, "builder")?;
            let mut new = Builder::new(&handle(store, "store")?.0);
            if let Some(base) = base.as_ref() {
                new.from(&base.image);
            }
            builder.give(zind_builder(new));
            Ok(())
        })
    }
}

/// Frees a description; what was built stays. builder: NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_builder_free(builder: *mut zind_builder) {
    // SAFETY: the header's demand.
    unsafe { free(builder) }
}

/// Whether results of earlier builds are used. They are, at first. What is built is kept in both cases.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_builder_set_cache(
    builder: *mut zind_builder,
    on: bool,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            handle_mut(builder, "builder")?.0.cache(on);
            Ok(())
        })
    }
}

/// The ids of a user namespace for all steps that run: those that spec has (zind_spec_set_id_maps(), zind_spec_set_uid_map(),
/// zind_spec_set_gid_map()). spec: copied.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_builder_set_id_maps(
    builder: *mut zind_builder,
    spec: *const zind_spec,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let maps = handle(spec, "spec")?.0.id_maps.clone();
            handle_mut(builder, "builder")?.0.id_maps(maps);
            Ok(())
        })
    }
}

/// A program to run, as the user and in the directory of the steps before, unless spec says otherwise. It must exit with 0.
/// Everything that spec asks for (mounts, network, variables, limits...) is part of what the step is, except its streams and
/// its time limit. Its root and id maps are the builder's; its standard input is empty unless it is set. As root it has the
/// capabilities that Docker gives, unless spec names others. A step that mounts something of the host, or a volume, is carried
/// out each time. spec: copied.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_builder_run(
    builder: *mut zind_builder,
    spec: *const zind_spec,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let command = Command::from(handle(spec, "spec")?.0.clone());
            handle_mut(builder, "builder")?.0.run_command(&command);
            Ok(())
        })
    }
}

/// Files or trees of the host into the image, by the rules of zind_root_copy_in().
/// owner: "user" or "user:group", by name or number of the image; NULL for root.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_builder_copy(
    builder: *mut zind_builder,
    source: *const c_char,
    target: *const c_char,
    owner: *const c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let (source, target) = (path(source, "source")?, path(target, "target")?);
            let owner = optional_text(owner, "owner")?.unwrap_or("0:0");
            handle_mut(builder, "builder")?.0.copy_as(source, target, owner);
            Ok(())
        })
    }
}

/// A step that changes only the configuration.
/// what: "env" or "label" (values: name and value), "workdir", "user", "expose", "volume" or "stop_signal" (one value),
/// "entrypoint" or "cmd" (any number). values: an array that ends with NULL.
/// Returns also ZIND_STATUS_UTF8 or _SPEC for what is no such step.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_builder_configure(
    builder: *mut zind_builder,
    what: *const c_char,
    values: *const *const c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let text = text(what, "what")?;
            let value = |value: &std::ffi::OsStr| value.to_str().map(str::to_owned).ok_or(Failure::Utf8("values"));
            let values = list(values, "values")?.into_iter().map(value).collect::<Result<Vec<_>, _>>()?;
            handle_mut(builder, "builder")?.0.configure(text, values)?;
            Ok(())
        })
    }
}

/// Carries out the steps whose results are not there, and makes the image. May be called any number of times.
/// options: as of zind_layers_commit().
/// image: receives the handle; free it with zind_image_free().
/// steps: NULL, or receives what became of the steps, as of zind_store_build(); free it with zind_string_free().
/// Returns also ZIND_STATUS_FAILED (a program did not exit with 0), _SPEC, _INTERRUPTED, _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_builder_commit(
    builder: *const zind_builder,
    options: *const c_char,
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
            let (builder, options) = (&handle(builder, "builder")?.0, commit_options(options)?);
            let built = builder.commit(&options, &mut Told::new(progress, data))?;
            if let Some(steps) = steps {
                give_string(steps, built.steps_json().to_string());
            }
            image.give(zind_image::new(built.image));
            Ok(())
        })
    }
}
