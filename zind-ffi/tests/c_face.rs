//! The C face from outside: C and C++ programs against the shared and the static library, and the look of both.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const PROGRAMS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/c");
const WARNINGS: [&str; 4] = ["-Wall", "-Wextra", "-Werror", "-pedantic"];
/// What a C linker needs besides `libzind.a`; also in zind.pc.in.
const STATIC_LIBRARIES: [&str; 6] = ["-lutil", "-lrt", "-lpthread", "-lm", "-ldl", "-lc"];

/// Where cargo put `libzind.so` and `libzind.a`: beside this test.
fn libraries() -> PathBuf {
    let own = std::env::current_exe().expect("a test has a path");
    own.parent().expect("a test is in a directory").to_owned()
}

/// A directory of one test, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Scratch {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("zind-ffi-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).expect("the temporary directory is writable");
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs a command; a failure of it is one of the test.
fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat();
    let end: Vec<&str> = said.lines().rev().take(40).collect();
    let end: String = end.into_iter().rev().flat_map(|line| [line, "\n"]).collect();
    assert!(output.status.success(), "{command:?}: {}\n{end}", output.status);
    output
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// How a program is linked.
#[derive(Clone, Copy)]
enum Link {
    Shared,
    Static,
}

/// Compiles and links one program by `compiler`, a command with its options.
fn compile(compiler: &[&str], source: &Path, link: Link, scratch: &Scratch) -> PathBuf {
    let program = scratch.0.join("program");
    let mut command = Command::new(compiler[0]);
    command.args(&compiler[1..]).args(WARNINGS).args(["-g", "-D_GNU_SOURCE"]);
    command.arg(format!("-I{ROOT}/include")).arg(format!("-I{PROGRAMS}")).arg(source).arg("-o").arg(&program);
    match link {
        Link::Static => command.arg(libraries().join("libzind.a")).args(STATIC_LIBRARIES),
        // What the programs ask for at run time is the soname.
        Link::Shared => {
            let _ = std::fs::remove_file(scratch.0.join("libzind.so.0"));
            std::os::unix::fs::symlink(libraries().join("libzind.so"), scratch.0.join("libzind.so.0"))
                .expect("links can be made");
            command
                .arg(libraries().join("libzind.so"))
                .arg(format!("-Wl,-rpath,{}", scratch.0.display()))
                .arg("-lpthread")
        }
    };
    run(&mut command);
    program
}

/// Compiles a program in both ways and runs each.
fn compiles_and_runs(compiler: &[&str], source: &Path) {
    for link in [Link::Shared, Link::Static] {
        let scratch = Scratch::new();
        run(&mut Command::new(compile(compiler, source, link, &scratch)));
    }
}

fn program(name: &str) -> PathBuf {
    Path::new(PROGRAMS).join(name)
}

#[test]
fn c99_and_c11_programs_use_every_kind_of_call() {
    compiles_and_runs(&["cc", "-std=c99"], &program("use.c"));
    compiles_and_runs(&["cc", "-std=c11"], &program("use.c"));
}

#[test]
fn cpp_programs_use_it_too() {
    compiles_and_runs(&["c++", "-std=c++17"], &program("use.cc"));
}

#[test]
fn containers_live() {
    compiles_and_runs(&["cc", "-std=c99"], &program("living.c"));
    let scratch = Scratch::new();
    let source = scratch.0.join("living.cc");
    std::fs::copy(program("living.c"), &source).expect("the temporary directory is writable");
    run(&mut Command::new(compile(&["c++", "-std=c++17"], &source, Link::Shared, &scratch)));
}

#[test]
fn the_header_can_be_included_twice() {
    for standard in ["-std=c99", "-std=c11", "-std=gnu2x"] {
        compiles_and_runs(&["cc", standard], &program("twice.c"));
    }
    let scratch = Scratch::new();
    let source = scratch.0.join("twice.cc");
    std::fs::copy(program("twice.c"), &source).expect("the temporary directory is writable");
    compiles_and_runs(&["c++", "-std=c++11"], &source);
}

#[test]
fn misuse_is_an_error_and_never_a_crash() {
    compiles_and_runs(&["cc", "-std=c99"], &program("misuse.c"));
}

#[test]
fn many_threads_start_containers_at_once() {
    compiles_and_runs(&["cc", "-std=c11"], &program("threads.c"));
}

#[test]
fn nothing_is_leaked_or_used_after_its_end() {
    let sanitize = ["cc", "-std=c11", "-fsanitize=address,undefined"];
    for name in ["use.c", "misuse.c", "living.c", "threads.c"] {
        let scratch = Scratch::new();
        run(&mut Command::new(compile(&sanitize, &program(name), Link::Shared, &scratch)));
    }
}

#[test]
fn nothing_is_read_uninitialized() {
    if Command::new("valgrind").arg("--version").output().is_err() {
        eprintln!("skipped: there is no valgrind");
        return;
    }
    for name in ["use.c", "misuse.c", "living.c"] {
        let scratch = Scratch::new();
        let program = compile(&["cc", "-std=c11"], &program(name), Link::Shared, &scratch);
        let options = ["--quiet", "--error-exitcode=9", "--leak-check=full", "--errors-for-leak-kinds=definite"];
        // Up to 3.24 valgrind hides the calls that a start needs: clone3, pidfd_send_signal, execveat of a memory file; and
        // openat2, which deletes containers.
        run(Command::new("valgrind").args(options).arg(program).arg("without-starts"));
    }
}

/// A function of the header: what it returns, its name, its parameters.
struct Prototype {
    result: String,
    name: String,
    parameters: Vec<String>,
}

/// Every function that the header declares.
fn prototypes() -> Vec<Prototype> {
    let header = std::fs::read_to_string(format!("{ROOT}/include/zind.h")).expect("the header is there");
    let mut code = String::new();
    let mut rest = header.as_str();
    while let Some((before, after)) = rest.split_once("/*") {
        code.push_str(before);
        rest = after.split_once("*/").expect("comments end").1;
    }
    code.push_str(rest);
    let code: String = code.lines().filter(|line| !line.starts_with('#')).flat_map(|line| [line, " "]).collect();
    let mut found = Vec::new();
    for statement in code.split(';') {
        let statement = statement.rsplit('{').next().unwrap_or_default().trim();
        let Some((head, parameters)) = statement.strip_suffix(')').and_then(|text| text.split_once('(')) else {
            continue;
        };
        let Some(at) = head.rfind("zind_").filter(|_| !statement.starts_with("typedef")) else { continue };
        found.push(Prototype {
            result: head[..at].trim().to_owned(),
            name: head[at..].to_owned(),
            parameters: parameters.split(',').map(|parameter| parameter.trim().to_owned()).collect(),
        });
    }
    found
}

/// The handle a function works on, by the function that makes one in the generated program.
fn maker(prototype: &Prototype) -> Option<&'static str> {
    let handles = [("zind_spec *", "spec"), ("zind_start *", "start"), ("zind_process *", "process")];
    let more = [("zind_output *", "output"), ("zind_root *", "root"), ("zind_error *", "failure")];
    let living = [("zind_containers *", "containers"), ("zind_container *", "container")];
    let handles = handles.into_iter().chain(more).chain(living);
    let first = prototype.parameters.first()?.trim_start_matches("const ");
    let (_, made) = handles.into_iter().find(|(pointer, _)| first.starts_with(*pointer) && !first.contains("**"))?;
    (!prototype.name.ends_with("_free")).then_some(made)
}

/// A program that calls every function with NULL and 0 everywhere, then with a live handle and NULL for the rest.
fn nulls() -> String {
    let mut calls = String::new();
    for prototype in prototypes() {
        let Prototype { result, name, parameters } = &prototype;
        let empty = parameters == &["void"];
        let function =
            |parameter: &String| ["zind_interrupted", "zind_progress"].iter().any(|name| parameter.starts_with(name));
        let pointer = |parameter: &String| parameter.contains('*') || function(parameter);
        let zeros = |err: &str, first: Option<&str>| {
            let value = |(i, parameter): (usize, &String)| match (i, first) {
                (0, Some(first)) => first.to_owned(),
                _ if parameter.ends_with("**err") => err.to_owned(),
                _ if pointer(parameter) => "NULL".to_owned(),
                _ => "0".to_owned(),
            };
            parameters.iter().filter(|_| !empty).enumerate().map(value).collect::<Vec<_>>().join(", ")
        };
        let wants = parameters.iter().any(|parameter| parameter.contains('*') && !parameter.ends_with("**err"));
        if result == "zind_status" && wants && name != "zind_error_status" {
            let _ = writeln!(calls, "    CHECK({name}({}) == ZIND_STATUS_NULL);", zeros("NULL", None));
            if parameters.iter().any(|parameter| parameter.ends_with("**err")) {
                let _ = writeln!(calls, "    FAILS({name}({}), ZIND_STATUS_NULL);", zeros("&error", None));
                let _ = writeln!(calls, "    CHECK(zind_error_field(error) != NULL);");
            }
        } else {
            let _ = writeln!(calls, "    (void){name}({});", zeros("NULL", None));
        }
        if let Some(maker) = maker(&prototype) {
            let _ = writeln!(calls, "    {{ zind_{} *handle = {maker}();", maker.replace("failure", "error"));
            if result == "zind_status" && name != "zind_error_status" {
                let _ = writeln!(calls, "      zind_status status = {name}({});", zeros("NULL", Some("handle")));
                let _ = writeln!(calls, "      CHECK(status != ZIND_STATUS_PANIC);");
            } else {
                let _ = writeln!(calls, "      (void){name}({});", zeros("NULL", Some("handle")));
            }
            let _ = writeln!(calls, "      zind_{}_free(handle); }}", maker.replace("failure", "error"));
        }
    }
    format!(
        r#"#include <zind.h>
#include "check.h"
static zind_error *error = NULL;
static zind_spec *spec(void) {{
    const char *args[] = {{"true", NULL}};
    zind_spec *made = NULL;
    CHECK(zind_spec_new(&made, NULL) == ZIND_STATUS_OK);
    CHECK(zind_spec_set_args(made, args, NULL) == ZIND_STATUS_OK);
    return made;
}}
static zind_start *start(void) {{
    zind_spec *from = spec();
    zind_start *made = NULL;
    CHECK(zind_start_begin(from, &made, NULL) == ZIND_STATUS_OK);
    zind_spec_free(from);
    return made;
}}
static zind_process *process(void) {{
    zind_spec *from = spec();
    zind_process *made = NULL;
    CHECK(zind_run(from, &made, NULL) == ZIND_STATUS_OK);
    zind_spec_free(from);
    return made;
}}
static zind_output *output(void) {{
    zind_spec *from = spec();
    zind_output *made = NULL;
    CHECK(zind_capture(from, NULL, 0, &made, NULL) == ZIND_STATUS_OK);
    zind_spec_free(from);
    return made;
}}
static zind_root *root(void) {{
    zind_root *made = NULL;
    CHECK(zind_root_open("/", &made, NULL) == ZIND_STATUS_OK);
    return made;
}}
static char place[] = "/tmp/zind-nulls-XXXXXX";
static zind_containers *containers(void) {{
    zind_containers *made = NULL;
    static int is_there = 0;
    if (!is_there) CHECK(mkdtemp(place) != NULL);
    is_there = 1;
    CHECK(zind_containers_open(place, &made, NULL) == ZIND_STATUS_OK);
    return made;
}}
static void forget(zind_containers *from) {{
    zind_container *last = NULL;
    if (zind_containers_find(from, "null", &last, NULL) == ZIND_STATUS_OK) {{
        CHECK(zind_container_delete(last, true, NULL) == ZIND_STATUS_OK);
    }}
    zind_container_free(last);
}}
static zind_container *container(void) {{
    zind_containers *in = containers();
    zind_spec *from = spec();
    zind_container *made = NULL;
    zind_container_options options = ZIND_CONTAINER_OPTIONS_INIT;
    forget(in);
    options.name = "null";
    CHECK(zind_container_create(in, from, &options, &made, NULL) == ZIND_STATUS_OK);
    zind_spec_free(from);
    zind_containers_free(in);
    return made;
}}
static zind_error *failure(void) {{
    zind_error *made = NULL;
    CHECK(zind_spec_new(NULL, &made) == ZIND_STATUS_NULL && made != NULL);
    return made;
}}
int main(void) {{
    char command[64];
{calls}    zind_error_clear(&error);
    zind_containers *in = containers();
    forget(in);
    zind_containers_free(in);
    snprintf(command, sizeof command, "rm -r %s", place);
    return system(command) == 0 ? 0 : 1;
}}
"#
    )
}

#[test]
fn null_is_an_error_in_every_place_of_every_function() {
    let scratch = Scratch::new();
    let source = scratch.0.join("nulls.c");
    std::fs::write(&source, nulls()).expect("the temporary directory is writable");
    compiles_and_runs(&["cc", "-std=c11"], &source);
}

#[test]
fn exactly_the_functions_of_the_header_are_exported() {
    let listing = text(&run(Command::new("nm").args(["-D", "--defined-only"]).arg(libraries().join("libzind.so"))));
    let mut exported: Vec<&str> = listing.lines().filter_map(|line| line.split_whitespace().last()).collect();
    let declared = prototypes();
    let mut declared: Vec<&str> = declared.iter().map(|prototype| prototype.name.as_str()).collect();
    exported.sort_unstable();
    declared.sort_unstable();
    assert_eq!(exported, declared);
    assert!(declared.len() > 100, "{} functions", declared.len());
}

#[test]
fn the_shared_library_has_its_soname_and_stays_loaded() {
    let dynamic = text(&run(Command::new("readelf").args(["-d", "-W"]).arg(libraries().join("libzind.so"))));
    assert!(dynamic.contains("Library soname: [libzind.so.0]"), "{dynamic}");
    assert!(dynamic.lines().any(|line| line.contains("FLAGS_1") && line.contains("NODELETE")), "{dynamic}");
}

#[test]
fn the_examples_run() {
    let scratch = Scratch::new();
    let quickstart = Path::new(ROOT).join("examples/c/quickstart.c");
    let output = run(&mut Command::new(compile(&["cc", "-std=c99"], &quickstart, Link::Shared, &scratch)));
    assert_eq!(text(&output), "process 2 on box, with 0 files in /home\nexit code 0\n");

    let build = Path::new(ROOT).join("examples/c/isolated_build.c");
    let source = scratch.0.join("answer.c");
    std::fs::write(&source, "int answer(void) { return 42; }\n").expect("the temporary directory is writable");
    let build = compile(&["cc", "-std=c99"], &build, Link::Shared, &scratch);
    let output = run(Command::new(&build).arg(&source));
    assert!(text(&output).contains("answer:") && text(&output).contains("42"), "{}", text(&output));
    std::fs::write(&source, "int answer(void) { return }\n").expect("the temporary directory is writable");
    let output = Command::new(&build).arg(&source).output().expect("the example runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("error"), "{output:?}");

    let changes = compile(&["cc", "-std=c99"], &Path::new(ROOT).join("examples/c/changes.c"), Link::Shared, &scratch);
    let root = scratch.0.join("root");
    for name in ["bin", "dev", "proc", "sys", "etc"] {
        std::fs::create_dir_all(root.join(name)).expect("the temporary directory is writable");
    }
    std::fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox is installed");
    let script = ["/bin/busybox", "sh", "-c", "echo x >/etc/new; exit 3"];
    let output = Command::new(&changes).arg(&root).arg(scratch.0.join("empty")).args(script).output();
    let output = output.expect("the example runs");
    assert_eq!((text(&output).as_str(), output.status.code()), ("added /etc/new\n", Some(3)), "{output:?}");
    assert!(!scratch.0.join("empty").exists());

    let images = compile(&["cc", "-std=c99"], &Path::new(ROOT).join("examples/c/images.c"), Link::Shared, &scratch);
    let tar = scratch.0.join("root.tar");
    run(Command::new("tar").arg("-cf").arg(&tar).arg("-C").arg(&root).arg("."));
    let script = ["/bin/busybox", "sh", "-c", "echo in the image; exit 4"];
    let output = Command::new(&images).arg(scratch.0.join("store")).arg(&tar).args(script).output();
    let output = output.expect("the example runs");
    assert!(text(&output).starts_with("sha256:") && text(&output).ends_with("in the image\n"), "{output:?}");
    assert_eq!(output.status.code(), Some(4), "{output:?}");

    let living = compile(&["cc", "-std=c99"], &Path::new(ROOT).join("examples/c/living.c"), Link::Shared, &scratch);
    let output = run(Command::new(&living).arg(scratch.0.join("place")));
    assert_eq!(text(&output), "you said hello\nexit code 0\nstdout: serving\nstdout: you said hello\n");
}

#[test]
fn an_installed_library_is_found_by_pkg_config() {
    if Command::new("pkg-config").arg("--version").output().is_err() {
        eprintln!("skipped: there is no pkg-config");
        return;
    }
    let scratch = Scratch::new();
    let prefix = scratch.0.join("prefix");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/install.sh");
    let staged = scratch.0.join("staged");
    run(Command::new(script).arg(&prefix).env("LIBRARIES", libraries()));
    run(Command::new(script).args([Path::new("/usr"), &staged]).env("LIBRARIES", libraries()));
    let pc = std::fs::read_to_string(staged.join("usr/lib/pkgconfig/zind.pc")).expect("it is staged");
    assert!(pc.starts_with("prefix=/usr\n") && !pc.contains('@'), "{pc}");
    let version = env!("CARGO_PKG_VERSION");
    assert!(staged.join(format!("usr/lib/libzind.so.{version}")).exists());

    let flags = |options: &[&str]| -> Vec<String> {
        let output = run(Command::new("pkg-config")
            .args(options)
            .arg("zind")
            .env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig")));
        text(&output).split_whitespace().map(str::to_owned).collect()
    };
    assert_eq!(flags(&["--modversion"]), [version]);
    let source = Path::new(ROOT).join("examples/c/quickstart.c");
    let program = scratch.0.join("program");
    run(Command::new("cc").arg(&source).args(flags(&["--cflags", "--libs"])).arg("-o").arg(&program));
    run(Command::new(&program).env("LD_LIBRARY_PATH", prefix.join("lib")));
    run(Command::new("cc")
        .arg("-static")
        .arg(&source)
        .args(flags(&["--static", "--cflags", "--libs"]))
        .arg("-o")
        .arg(&program));
    run(&mut Command::new(&program));
}
