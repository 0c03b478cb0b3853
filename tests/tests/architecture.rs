//! The shape of the house, held against `cargo metadata` and the sources: which way dependencies point, which crate wraps
//! which third-party client, what the sans-IO crates may not link, how long files may be.
#![forbid(unsafe_code)]
#![allow(clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use millrace_tests::imports::Imports;
use serde::Deserialize;

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
    workspace_root: PathBuf,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    manifest_path: PathBuf,
    source: Option<String>,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<NodeDep>,
}

#[derive(Deserialize)]
struct NodeDep {
    pkg: String,
    dep_kinds: Vec<DepKind>,
}

#[derive(Deserialize)]
struct DepKind {
    kind: Option<String>,
}

impl Metadata {
    fn load() -> &'static Self {
        static METADATA: OnceLock<Metadata> = OnceLock::new();
        METADATA.get_or_init(Self::ask_cargo)
    }

    fn ask_cargo() -> Self {
        // Only what this machine builds: crates of other platforms were never downloaded.
        let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo)
            .args(["metadata", "--format-version", "1", "--offline", "--filter-platform", &platform])
            .output()
            .expect("cargo runs");
        assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("cargo metadata prints its documented JSON")
    }

    fn ours(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| package.source.is_none())
    }

    fn package(&self, name: &str) -> &Package {
        self.ours().find(|package| package.name == name).unwrap_or_else(|| panic!("no package {name}"))
    }

    /// Names of everything linked into `name`, through normal dependencies.
    fn linked(&self, name: &str) -> BTreeSet<&str> {
        let names: BTreeMap<&str, &str> =
            self.packages.iter().map(|p| (p.id.as_str(), p.name.as_str())).collect();
        let nodes: BTreeMap<&str, &Node> = self.resolve.nodes.iter().map(|n| (n.id.as_str(), n)).collect();
        let mut seen = BTreeSet::new();
        let mut open = vec![self.package(name).id.as_str()];
        while let Some(id) = open.pop() {
            if !seen.insert(id) {
                continue;
            }
            let normal = |dep: &&NodeDep| dep.dep_kinds.iter().any(|kind| kind.kind.is_none());
            open.extend(nodes[id].deps.iter().filter(normal).map(|dep| dep.pkg.as_str()));
        }
        seen.into_iter().map(|id| names[id]).collect()
    }
}

/// Height of each package: a dependency must stand lower than its user.
const LAYERS: &[&[&str]] = &[
    &["millrace-buf"],
    &["millrace-media", "millrace-wire"],
    &["millrace-protocol"],
    &[
        "millrace-bus",
        "millrace-store",
        "millrace-state",
        "millrace-codec",
        "millrace-rtmp",
        "millrace-runtime",
    ],
    &["millrace-link", "millrace-outgoing"],
    &["millrace-node"],
    &["millrace-ingest", "millrace-transcode", "millrace-edge", "millrace-control"],
    &["millrace"],
];
/// Used by tests alone; they link whatever they test.
const FOR_TESTS: &[&str] = &["millrace-testkit", "millrace-tests"];

fn layer(name: &str) -> usize {
    LAYERS
        .iter()
        .position(|layer| layer.contains(&name))
        .unwrap_or_else(|| panic!("{name} has no place in LAYERS: say where a new crate stands"))
}

#[test]
fn dependencies_point_down_only() {
    let metadata = Metadata::load();
    let names: BTreeSet<&str> = metadata.ours().map(|package| package.name.as_str()).collect();
    let mut wrong = Vec::new();
    for package in metadata.ours().filter(|package| !FOR_TESTS.contains(&package.name.as_str())) {
        let normal = package.dependencies.iter().filter(|dep| dep.kind.is_none());
        for dep in normal.filter(|dep| names.contains(dep.name.as_str())) {
            if FOR_TESTS.contains(&dep.name.as_str()) || layer(&dep.name) >= layer(&package.name) {
                wrong.push(format!("{} -> {}", package.name, dep.name));
            }
        }
    }
    assert!(wrong.is_empty(), "dependencies that do not point down: {wrong:#?}");
}

#[test]
fn a_third_party_client_appears_in_one_crate() {
    const WRAPPED: &[(&str, &str)] = &[
        ("async-nats", "millrace-bus"),
        ("aws-sdk-s3", "millrace-store"),
        ("aws-smithy-http-client", "millrace-store"),
        ("aws-smithy-types", "millrace-store"),
        ("redis", "millrace-state"),
        ("redb", "millrace-state"),
        ("ffmpeg-next", "millrace-codec"),
        ("openh264", "millrace-codec"),
        ("seccompiler", "millrace-transcode"),
        ("rml_rtmp", "millrace-rtmp"),
    ];
    let metadata = Metadata::load();
    for (client, wrapper) in WRAPPED {
        let users: Vec<&str> = metadata
            .ours()
            .filter(|package| package.dependencies.iter().any(|dep| dep.name == *client))
            .map(|package| package.name.as_str())
            .collect();
        assert_eq!(users, [*wrapper], "crates that depend on {client}");
    }
    // Tests are clients of Millrace with the same library; what is shipped sends requests through one crate.
    let shipped = metadata.ours().filter(|package| !FOR_TESTS.contains(&package.name.as_str()));
    let links = |package: &&Package| {
        package.dependencies.iter().any(|dep| dep.name == "reqwest" && dep.kind.is_none())
    };
    let users: Vec<&str> = shipped.filter(links).map(|package| package.name.as_str()).collect();
    assert_eq!(users, ["millrace-outgoing"], "crates that depend on reqwest outside their tests");
}

#[test]
fn sans_io_crates_link_no_runtime() {
    const BANNED: &[&str] = &["tokio", "actix", "actix-rt", "actix-web", "reqwest", "hyper", "mio"];
    let metadata = Metadata::load();
    for name in ["millrace-buf", "millrace-media", "millrace-wire", "millrace-protocol"] {
        let linked = metadata.linked(name);
        let found: Vec<_> = BANNED.iter().filter(|banned| linked.contains(**banned)).collect();
        assert!(found.is_empty(), "{name} links {found:?}");
    }
}

/// Rust sources of one package, with their text.
fn sources(package: &Package) -> Vec<(PathBuf, String)> {
    let root = package.manifest_path.parent().expect("a manifest lies in a folder");
    let mut found = Vec::new();
    let mut open = vec![root.to_path_buf()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).expect("the folder is readable") {
            let path = entry.expect("the entry is readable").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() && !["node_modules", "target", "fuzz"].contains(&name.as_str()) {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).expect("sources are UTF-8");
                found.push((path, text));
            }
        }
    }
    found
}

fn each_source(mut check: impl FnMut(&Package, &Path, &str) -> Option<String>) {
    let metadata = Metadata::load();
    let mut wrong = Vec::new();
    for package in metadata.ours() {
        for (path, text) in sources(package) {
            if let Some(what) = check(package, &path, &text) {
                let path = path.strip_prefix(&metadata.workspace_root).unwrap_or(&path).display().to_string();
                wrong.push(format!("{path}: {what}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn files_stay_short() {
    const MAX_LINES: usize = 800;
    const MAX_MAIN_LINES: usize = 40;
    each_source(|_, path, text| {
        let lines = text.lines().count();
        let is_main = path.ends_with("src/main.rs");
        let most = if is_main { MAX_MAIN_LINES } else { MAX_LINES };
        (lines > most).then(|| format!("{lines} lines, at most {most}"))
    });
}

#[test]
fn only_codec_may_be_unsafe() {
    each_source(|package, path, text| {
        let is_root = path.ends_with("src/lib.rs") || path.ends_with("src/main.rs");
        let forbids = text.contains("#![forbid(unsafe_code)]");
        (is_root && package.name != "millrace-codec" && !forbids)
            .then(|| "lacks #![forbid(unsafe_code)]".into())
    });
}

#[test]
fn nothing_is_left_unfinished_or_skipped() {
    // Spelled in two halves, so that this file does not find itself.
    let banned = [["#[igno", "re"], ["todo", "!("], ["unimplemen", "ted!("]].map(|halves| halves.concat());
    each_source(|_, _, text| {
        banned.iter().find(|word| text.contains(word.as_str())).map(|word| format!("contains {word}"))
    });
}

#[test]
fn nodes_exchange_messages_through_link_alone() {
    const NODES: &[&str] = &["millrace-ingest", "millrace-transcode", "millrace-edge", "millrace-control"];
    const RAW: &[&str] = &["subscribe", "queue_subscribe", "publish", "request", "gather", "respond"];
    each_source(|package, path, text| {
        let root = package.manifest_path.parent().expect("a manifest lies in a folder").join("src");
        if !NODES.contains(&package.name.as_str()) || !path.starts_with(root) {
            return None;
        }
        // Unit tests below the code may play the other side of the bus by hand.
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        let is_raw =
            |call: &&&str| code.contains(&format!("bus.{call}(")) || code.contains(&format!("bus().{call}("));
        RAW.iter().find(is_raw).map(|call| format!("calls bus.{call} instead of millrace_link"))
    });
}

#[test]
fn actix_stays_in_its_modules() {
    let is_in = |path: &Path, module: &str| {
        path.components().any(|part| {
            let part = part.as_os_str().to_string_lossy();
            part == module || part.strip_suffix(".rs").is_some_and(|name| name == module)
        })
    };
    each_source(|package, path, text| {
        if FOR_TESTS.contains(&package.name.as_str()) || is_in(path, "tests") {
            return None;
        }
        let code = || text.lines().map(str::trim_start).filter(|line| !line.starts_with("//"));
        let web = code().any(|line| line.contains("actix_web::")) && !is_in(path, "http");
        let actors = code().any(|line| line.contains("actix::"))
            && !is_in(path, "actors")
            && package.name != "millrace-runtime";
        match (web, actors) {
            (true, _) => Some("uses actix-web outside an http module".into()),
            (_, true) => Some("uses actix outside an actors module".into()),
            _ => None,
        }
    });
}

/// The modules of each node from the ground up: a file imports from its own module and from those below. Modules of one row are
/// equals that may not import each other.
const FLOORS: &[(&str, &[&[&str]])] = &[
    (
        "ingest-node",
        &[
            &["limits"],
            &["metrics"],
            &["admission", "key_check", "paths"],
            &["config"],
            &["context"],
            &["session"],
            &["source"],
            &["node"],
            &["role"],
        ],
    ),
    (
        "transcode-node",
        &[
            &["codec_policy"],
            &["config", "metrics"],
            &["context"],
            &["encoders"],
            &["pictures"],
            &["rungs", "output"],
            &["job"],
            &["worker"],
            &["calibration"],
            &["node"],
            &["role"],
        ],
    ),
    (
        "edge-node",
        &[
            &["config", "metrics"],
            &["objects", "audience"],
            &["context"],
            &["catalog"],
            &["aliases", "live"],
            &["http"],
            &["node"],
            &["role"],
        ],
    ),
    (
        "control",
        &[
            &["domain"],
            &["config"],
            &["repo"],
            &["events"],
            &["context"],
            &["audit"],
            &["auth", "livestreams"],
            &["webhooks"],
            &["bus", "reconciler", "http"],
            &["node"],
            &["role"],
        ],
    ),
];

fn imports(package: &Package) -> Imports {
    Imports::of(&package.manifest_path.parent().expect("a manifest lies in a folder").join("src"))
}

#[test]
fn files_do_not_import_each_other_in_a_circle() {
    let metadata = Metadata::load();
    let circles: Vec<_> = metadata
        .ours()
        .flat_map(|package| {
            imports(package).circles().into_iter().map(|circle| (package.name.clone(), circle))
        })
        .collect();
    assert!(circles.is_empty(), "files that import each other in a circle: {circles:#?}");
}

#[test]
fn imports_inside_a_node_point_down_only() {
    let metadata = Metadata::load();
    let mut wrong = Vec::new();
    for (node, floors) in FLOORS {
        let folder = metadata.workspace_root.join(node);
        // The root file hands names on and stands above every module.
        let floor = |file: &Path| -> Option<(usize, String)> {
            let module = file.iter().next().unwrap_or_default().to_string_lossy();
            let module = module.strip_suffix(".rs").unwrap_or(&module).to_owned();
            let place = floors.iter().position(|floor| floor.contains(&module.as_str()));
            let place = if ["lib", "main"].contains(&module.as_str()) { Some(floors.len()) } else { place };
            place.map(|place| (place, module))
        };
        for (from, targets) in &Imports::of(&folder.join("src")).edges {
            let Some((from_floor, from_module)) = floor(from) else {
                wrong.push(format!("{node}: {} has no floor: say in FLOORS where it stands", from.display()));
                continue;
            };
            for (to, names) in targets {
                let Some((to_floor, to_module)) = floor(to) else { continue };
                if from_module != to_module && to_floor >= from_floor {
                    wrong.push(format!("{node}: {} -> {}: {names:?}", from.display(), to.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "imports that do not point down: {wrong:#?}");
}
