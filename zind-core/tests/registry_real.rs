//! Pull and push against Debian's docker-registry, with images of skopeo, umoci and buildah, which read them back.
//! Run as root, the whole file is run once more as an ordinary user.

#[path = "support/fake.rs"]
#[expect(dead_code, reason = "the other tests use the rest")]
mod fake;
#[path = "support/server.rs"]
#[expect(dead_code, reason = "the other tests use the rest")]
mod server;

use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use zind_core::{Auth, Error, Image, PullOptions, PushOptions, RegistryOptions, Store};

/// A directory that is gone with it.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Dir {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("zind-test-real-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Dir(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> String {
        std::fs::write(self.path(name), text).unwrap();
        self.text(name)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs a program that has to succeed; `make setup` installs all that are named here.
fn run(argv: &[&str]) -> String {
    let output = Command::new(argv[0]).args(&argv[1..]).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{}: {error}; see `make setup`", argv[0]));
    assert!(output.status.success(), "{argv:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A registry with the rest of its configuration, on a port of its own.
struct Registry {
    child: Child,
    host: String,
}

impl Registry {
    fn start(dir: &Dir, http: &str, auth: &str) -> Registry {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let data = dir.text(&format!("data{port}"));
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {data}}}}}\n\
             http: {{addr: '127.0.0.1:{port}'{http}}}\n{auth}"
        );
        let file = dir.write(&format!("config{port}.yml"), config);
        let mut command = Command::new("docker-registry");
        command.args(["serve", &file]).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap_or_else(|error| panic!("docker-registry: {error}; see `make setup`"));
        let until = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < until, "docker-registry does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Registry { child, host: format!("127.0.0.1:{port}") }
    }

    fn name(&self, rest: &str) -> String {
        format!("{}/{rest}", self.host)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// What is wrong in a store.
fn verified(store: &Store) -> Vec<zind_core::Fault> {
    store.verify(&mut ()).unwrap()
}

fn anonymous() -> RegistryOptions {
    let mut options = RegistryOptions::default();
    options.auth = Auth::Anonymous;
    options
}

fn pull(store: &Store, name: &str, registry: &RegistryOptions) -> Result<Image, Error> {
    let mut options = PullOptions::default();
    options.registry = registry.clone();
    store.pull(name, &options, &mut ())
}

fn push(store: &Store, image: &Image, name: &str, registry: &RegistryOptions) -> Result<(), Error> {
    let mut options = PushOptions::default();
    options.registry = registry.clone();
    store.push(image, name, &options, &mut ())
}

/// An image of two layers, made by umoci, as an OCI layout.
fn umoci_image(dir: &Dir) -> String {
    let layout = dir.text("layout");
    run(&["umoci", "init", "--layout", &layout]);
    let image = format!("{layout}:1");
    run(&["umoci", "new", "--image", &image]);
    std::fs::create_dir_all(dir.path("tree/etc")).unwrap();
    dir.write("tree/etc/motd", "hello\n");
    dir.write("large", fake::noise(1, 3 << 20));
    run(&["umoci", "insert", "--rootless", "--image", &image, &dir.text("tree"), "/"]);
    run(&["umoci", "insert", "--rootless", "--image", &image, &dir.text("large"), "/large"]);
    run(&[
        "umoci",
        "config",
        "--image",
        &image,
        "--config.cmd",
        "/bin/true",
        "--architecture",
        "amd64",
        "--os",
        "linux",
    ]);
    image
}

/// The digest that skopeo sees in a registry.
fn skopeo_digest(name: &str, more: &[&str]) -> String {
    let name = format!("docker://{name}");
    let argv = [&["skopeo", "inspect", "--format", "{{.Digest}}"], more, &[&name]].concat();
    run(&argv).trim().to_owned()
}

#[test]
fn images_go_round_with_other_programs_in_every_format() {
    let dir = Dir::new();
    let registry = Registry::start(&dir, "", "");
    let source = umoci_image(&dir);
    let zstd = dir.text("zstd");
    let compress = ["--dest-compress", "--dest-compress-format", "zstd"];
    let oci = format!("oci:{source}");
    run(&[&["skopeo", "copy"], &compress[..], &[&oci, &format!("oci:{zstd}:1")]].concat());
    for (tag, from, more) in [
        ("oci", oci.as_str(), &[][..]),
        ("docker", oci.as_str(), &["--format", "v2s2"][..]),
        ("zstd", &format!("oci:{zstd}:1"), &["--preserve-digests"][..]),
    ] {
        let name = registry.name(&format!("team/app:{tag}"));
        let tls = ["--dest-tls-verify=false"];
        run(&[&["skopeo", "copy"], more, &tls[..], &[from, &format!("docker://{name}")]].concat());
        let store = Store::open(Some(dir.path(&format!("store-{tag}")))).unwrap();
        let image = pull(&store, &name, &anonymous()).unwrap();
        assert_eq!(image.digest().to_string(), skopeo_digest(&name, &["--tls-verify=false"]));
        assert_eq!(image.layers().unwrap().len(), 2);
        assert_eq!(image.config().unwrap().config.cmd.as_deref(), Some(&["/bin/true".to_owned()][..]));
        assert_eq!(verified(&store), []);
        // To another repository, whole and in pieces; there, others see the same.
        for (back, chunk) in [("back/whole", None), ("back/pieces", Some(1 << 20))] {
            let back = registry.name(&format!("{back}:{tag}"));
            let mut options = PushOptions::default();
            options.registry = anonymous();
            options.chunk_size = chunk;
            // A repository that does not exist: nothing is mounted, everything is sent.
            options.mount_from = Some("nobody/has".into());
            store.push(&image, &back, &options, &mut ()).unwrap();
            assert_eq!(skopeo_digest(&back, &["--tls-verify=false"]), image.digest().to_string());
            let copy = dir.text(&format!("copy-{tag}-{}", chunk.unwrap_or(0)));
            run(&["skopeo", "copy", "--src-tls-verify=false", &format!("docker://{back}"), &format!("dir:{copy}")]);
            let other = Store::open(Some(dir.path(&format!("other-{tag}-{}", chunk.unwrap_or(0))))).unwrap();
            assert_eq!(pull(&other, &back, &anonymous()).unwrap().digest(), image.digest());
        }
        // The blobs are mounted.
        let mounted = registry.name(&format!("mounted/app:{tag}"));
        push(&store, &image, &mounted, &anonymous()).unwrap();
        assert_eq!(skopeo_digest(&mounted, &["--tls-verify=false"]), image.digest().to_string());
    }
}

#[test]
fn tags_digests_and_what_is_not_there() {
    let dir = Dir::new();
    let registry = Registry::start(&dir, "", "");
    let source = umoci_image(&dir);
    let name = registry.name("team/app:1");
    run(&["skopeo", "copy", "--dest-tls-verify=false", &format!("oci:{source}"), &format!("docker://{name}")]);
    let store = Store::open(Some(dir.path("store"))).unwrap();
    let image = pull(
        &store,
        &registry.name(&format!("team/app@{}", skopeo_digest(&name, &["--tls-verify=false"]))),
        &anonymous(),
    );
    let image = image.unwrap();
    assert_eq!(pull(&store, &name, &anonymous()).unwrap(), image);
    for missing in ["team/app:2", "nobody/app:1", &format!("team/app@sha256:{}", "0".repeat(64))] {
        match pull(&store, &registry.name(missing), &anonymous()) {
            Err(Error::Registry { status: Some(404), code, .. }) => {
                assert!(["MANIFEST_UNKNOWN", "NAME_UNKNOWN"].contains(&code.as_str()), "{code}");
            }
            other => panic!("{missing}: {other:?}"),
        }
    }
}

/// An authority, a certificate for 127.0.0.1 (or another name), and the directory that others trust it by.
fn certificates(dir: &Dir, name: &str) -> (String, PathBuf) {
    let ca = [dir.text("ca.key"), dir.text("ca.crt")];
    let own = [dir.text("own.key"), dir.text("own.csr"), dir.text("own.crt")];
    let extensions = dir.write("extensions", format!("subjectAltName={name}\nbasicConstraints=CA:FALSE\n"));
    run(&[
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=test authority",
        "-keyout",
        &ca[0],
        "-out",
        &ca[1],
    ]);
    run(&["openssl", "req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=test", "-keyout", &own[0], "-out", &own[1]]);
    run(&[
        "openssl",
        "x509",
        "-req",
        "-in",
        &own[1],
        "-CA",
        &ca[1],
        "-CAkey",
        &ca[0],
        "-CAcreateserial",
        "-days",
        "2",
        "-extfile",
        &extensions,
        "-out",
        &own[2],
    ]);
    let trust = dir.path("certs.d");
    std::fs::create_dir_all(&trust).unwrap();
    std::fs::copy(&ca[1], trust.join("ca.crt")).unwrap();
    (format!(", tls: {{certificate: {}, key: {}}}", own[2], own[0]), trust)
}

fn tls_error(result: Result<Image, Error>) -> String {
    match result {
        Err(Error::Registry { code, detail, hint, .. }) if code == "tls" => format!("{detail}; {hint}"),
        other => panic!("no error of TLS: {other:?}"),
    }
}

#[test]
fn tls_with_an_own_authority_and_a_password() {
    let dir = Dir::new();
    let (tls, trust) = certificates(&dir, "IP:127.0.0.1");
    let passwords = dir.write("htpasswd", run(&["htpasswd", "-Bbn", "user", "pass"]));
    let auth = format!("auth: {{htpasswd: {{realm: test, path: {passwords}}}}}\n");
    let registry = Registry::start(&dir, &tls, &auth);
    let source = umoci_image(&dir);
    let name = registry.name("team/app:1");
    let trusted = trust.to_str().unwrap();
    run(&[
        "skopeo",
        "copy",
        "--dest-creds",
        "user:pass",
        "--dest-cert-dir",
        trusted,
        &format!("oci:{source}"),
        &format!("docker://{name}"),
    ]);
    let store = Store::open(Some(dir.path("store"))).unwrap();
    let words = tls_error(pull(&store, &name, &anonymous()));
    assert!(words.contains("UnknownIssuer") && words.contains("/etc/containers/certs.d/"), "{words}");
    let mut options = anonymous();
    options.cert_dir = Some(trust.clone());
    let result = pull(&store, &name, &options);
    assert!(
        matches!(&result, Err(Error::Registry { status: Some(401), code, .. }) if code == "UNAUTHORIZED"),
        "{result:?}"
    );
    options.auth = Auth::Basic { user: "user".into(), password: "wrong".into() };
    let result = pull(&store, &name, &options);
    assert!(matches!(&result, Err(Error::Registry { status: Some(401), .. })), "{result:?}");
    options.auth = Auth::Basic { user: "user".into(), password: "pass".into() };
    let image = pull(&store, &name, &options).unwrap();
    // Without checking: any certificate, but still the password.
    let mut unchecked = anonymous();
    unchecked.auth = options.auth.clone();
    unchecked.tls_verify = false;
    let back = registry.name("back/app:1");
    push(&store, &image, &back, &unchecked).unwrap();
    let more = ["--creds", "user:pass", "--cert-dir", trusted];
    assert_eq!(skopeo_digest(&back, &more), image.digest().to_string());
    // Credentials of a login, as skopeo writes them.
    let file = dir.text("auth.json");
    run(&["skopeo", "login", "--authfile", &file, "--cert-dir", trusted, "-u", "user", "-p", "pass", &registry.host]);
    let mut files = RegistryOptions::default();
    files.auth_file = Some(file.into());
    files.cert_dir = Some(trust.clone());
    let other = Store::open(Some(dir.path("other"))).unwrap();
    assert_eq!(pull(&other, &back, &files).unwrap().digest(), image.digest());
    // A directory of certificates that has something else in it.
    std::fs::write(trust.join("more.crt"), "no certificate").unwrap();
    let error = pull(&store, &registry.name("team/app:2"), &options).unwrap_err();
    assert_eq!(error.step().map(|step| step.name()), Some("ReadCertificates"), "{error}");
}

/// A registry behind TLS that sends uploads to a plain place elsewhere.
#[test]
fn uploads_do_not_go_from_https_to_http() {
    let dir = Dir::new();
    let (tls, trust) = certificates(&dir, "IP:127.0.0.1");
    let source = umoci_image(&dir);
    let good = Registry::start(&dir, &tls, "");
    let name = good.name("team/app:1");
    let to = format!("docker://{name}");
    run(&["skopeo", "copy", "--dest-cert-dir", trust.to_str().unwrap(), &format!("oci:{source}"), &to]);
    let store = Store::open(Some(dir.path("store"))).unwrap();
    let mut options = anonymous();
    options.cert_dir = Some(trust);
    let image = pull(&store, &name, &options).unwrap();
    push(&store, &image, &good.name("other/app:1"), &options).unwrap();

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let elsewhere = format!(", host: 'http://{}'", listener.local_addr().unwrap());
    let registry = Registry::start(&dir, &(tls + &elsewhere), "");
    let result = push(&store, &image, &registry.name("team/app:1"), &options);
    assert!(matches!(&result, Err(Error::Registry { code, .. }) if code == "redirect"), "{result:?}");
    assert!(matches!(listener.accept(), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock));
}

#[test]
fn a_certificate_for_another_name_is_refused() {
    let dir = Dir::new();
    let (tls, trust) = certificates(&dir, "DNS:registry.test");
    let registry = Registry::start(&dir, &tls, "");
    let store = Store::open(Some(dir.path("store"))).unwrap();
    let mut options = anonymous();
    options.cert_dir = Some(trust);
    let words = tls_error(pull(&store, &registry.name("team/app:1"), &options));
    assert!(words.contains("name"), "{words}");
}

#[test]
fn an_image_of_buildah_is_pulled_and_read_back() {
    // An ordinary user's buildah wants ranges of ids; whose image it is makes no difference here.
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let dir = Dir::new();
    let registry = Registry::start(&dir, "", "");
    let (root, run_root) = (dir.text("containers"), dir.text("run"));
    let buildah = |argv: &[&str]| {
        let own = ["buildah", "--root", &root, "--runroot", &run_root, "--storage-driver", "vfs"];
        run(&[&own[..], argv].concat()).trim().to_owned()
    };
    let file = dir.write("motd", "made by buildah\n");
    let container = buildah(&["from", "scratch"]);
    buildah(&["copy", &container, &file, "/etc/motd"]);
    buildah(&["config", "--env", "A=b", &container]);
    let name = registry.name("team/built:1");
    buildah(&["commit", "--tls-verify=false", &container, &format!("docker://{name}")]);
    buildah(&["rm", &container]);
    let store = Store::open(Some(dir.path("store"))).unwrap();
    let image = pull(&store, &name, &anonymous()).unwrap();
    assert!(image.config().unwrap().config.env.contains(&"A=b".to_owned()));
    let back = registry.name("back/built:1");
    push(&store, &image, &back, &anonymous()).unwrap();
    let again = buildah(&["pull", "--tls-verify=false", &format!("docker://{back}")]);
    assert!(again.ends_with(&image.id().hex()), "{again}");
}

#[test]
fn pulls_of_the_same_image_at_once_all_get_it() {
    let dir = Dir::new();
    let registry = Registry::start(&dir, "", "");
    let source = umoci_image(&dir);
    let name = registry.name("team/app:1");
    run(&["skopeo", "copy", "--dest-tls-verify=false", &format!("oci:{source}"), &format!("docker://{name}")]);
    let store = Store::open(Some(dir.path("store"))).unwrap();
    std::thread::scope(|scope| {
        let pulls: Vec<_> = (0..4).map(|_| scope.spawn(|| pull(&store, &name, &anonymous()))).collect();
        let images: Vec<Image> = pulls.into_iter().map(|one| one.join().unwrap().unwrap()).collect();
        assert!(images.windows(2).all(|two| two[0] == two[1]));
    });
    assert_eq!(verified(&store), []);
}

/// The promises hold for an ordinary user, too.
#[test]
fn all_of_it_as_an_ordinary_user() {
    if !rustix::process::geteuid().is_root() || std::env::var_os("ZIND_TEST_INNER").is_some() {
        return;
    }
    let dir = std::env::temp_dir().join(format!("zind-test-registry_real-user-{}", std::process::id()));
    std::fs::create_dir_all(dir.join("tmp")).unwrap();
    let binary = dir.join("registry_real");
    std::fs::copy(std::env::current_exe().unwrap(), &binary).unwrap();
    for (path, mode) in [(&dir, 0o755), (&binary, 0o755), (&dir.join("tmp"), 0o1777)] {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    }
    let output = std::process::Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"])
        .arg(&binary)
        .arg("--test-threads=2")
        .env("ZIND_TEST_INNER", "1")
        .envs([("TMPDIR", dir.join("tmp")), ("HOME", dir.join("tmp")), ("XDG_RUNTIME_DIR", dir.join("tmp"))])
        .current_dir("/")
        .output()
        .unwrap();
    let all = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    let left: Vec<_> = std::fs::read_dir(dir.join("tmp")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    std::fs::remove_dir_all(&dir).unwrap();
    assert!(output.status.success(), "{all}");
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with("zind")), "{left:?}");
}
