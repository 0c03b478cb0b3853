//! The imports between the files of one crate, read with `syn`: which file names an item of which other file.
//!
//! Test modules are left out. A re-export (`pub use`) is a name for something that lies elsewhere: a path that goes through it leads
//! to the file that defines the item, and the re-export itself is no import.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemMod, ItemUse, UseTree, Visibility};

/// A path of names below the crate's root: `["session", "io"]` for `crate::session::io`.
type Names = Vec<String>;

/// The files of a crate and what each imports from the others; paths are relative to `src`.
#[derive(Debug)]
pub struct Imports {
    /// For each file, every file it imports from with the names it takes.
    pub edges: BTreeMap<PathBuf, BTreeMap<PathBuf, BTreeSet<String>>>,
}

/// One source file as parsed.
#[derive(Default)]
struct Module {
    file: PathBuf,
    children: BTreeSet<String>,
    /// Names that `use` items bring into the module, with the path each stands for.
    uses: BTreeMap<String, Names>,
    /// Paths that the code of the module names.
    named: BTreeSet<Names>,
}

impl Imports {
    /// Reads every file below `src`. Panics with the file's name when one cannot be read or parsed.
    #[must_use]
    pub fn of(src: &Path) -> Self {
        let mut modules = BTreeMap::new();
        for file in files(src) {
            let text =
                std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            let parsed = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            let relative = file.strip_prefix(src).unwrap_or(&file).to_path_buf();
            let at = module_of(&relative);
            let mut reader =
                Reader { at: at.clone(), module: Module { file: relative, ..Module::default() } };
            reader.module.children = children(&parsed.items);
            reader.visit_file(&parsed);
            modules.insert(at, reader.module);
        }
        let mut edges: BTreeMap<PathBuf, BTreeMap<PathBuf, BTreeSet<String>>> = BTreeMap::new();
        for module in modules.values() {
            let from = edges.entry(module.file.clone()).or_default();
            for path in &module.named {
                if let Some((file, name)) = resolve(&modules, path, 0)
                    && file != module.file
                {
                    from.entry(file).or_default().insert(name);
                }
            }
        }
        Self { edges }
    }

    /// Every group of files that import each other in a loop, each file with what it takes from the others of its group.
    #[must_use]
    pub fn circles(&self) -> Vec<Vec<String>> {
        let reached: BTreeMap<&PathBuf, BTreeSet<&PathBuf>> =
            self.edges.keys().map(|file| (file, self.reached_from(file))).collect();
        let mut seen = BTreeSet::new();
        let mut circles = Vec::new();
        for file in self.edges.keys() {
            let together: BTreeSet<&PathBuf> =
                reached[file].iter().copied().filter(|other| reached[*other].contains(file)).collect();
            if together.is_empty() || !seen.insert(together.clone()) {
                continue;
            }
            let arrows = together.iter().flat_map(|from| {
                self.edges[*from]
                    .iter()
                    .filter(|(to, _)| together.contains(to))
                    .map(move |(to, names)| format!("{} -> {}: {names:?}", from.display(), to.display()))
            });
            circles.push(arrows.collect());
        }
        circles
    }

    fn reached_from(&self, start: &PathBuf) -> BTreeSet<&PathBuf> {
        let mut seen = BTreeSet::new();
        let mut open = vec![start];
        while let Some(file) = open.pop() {
            for to in self.edges.get(file).into_iter().flat_map(BTreeMap::keys) {
                if seen.insert(to) {
                    open.push(to);
                }
            }
        }
        seen
    }
}

/// The sources below `folder`, without those of test modules.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.unwrap_or_else(|error| panic!("{}: {error}", folder.display())).path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && name != "tests" {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|kind| kind == "rs")
            && path
                .file_stem()
                .is_some_and(|stem| stem != "tests" && !stem.to_string_lossy().ends_with("_tests"))
        {
            found.push(path);
        }
    }
    found
}

/// `session/io.rs` is `["session", "io"]`, `session/mod.rs` is `["session"]`, `lib.rs` and `main.rs` are the root.
fn module_of(file: &Path) -> Names {
    let mut names: Names =
        file.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    match names.last().map(String::as_str) {
        Some("mod" | "lib") => drop(names.pop()),
        // The program of a crate stands above its library and is imported by no file.
        Some("main") if names.len() == 1 => names = vec!["(main)".to_owned()],
        _ => {}
    }
    names
}

fn children(items: &[Item]) -> BTreeSet<String> {
    let modules = items.iter().filter_map(|item| match item {
        Item::Mod(module) if !is_test(&module.attrs) => Some(module.ident.to_string()),
        _ => None,
    });
    modules.collect()
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Path>().is_ok_and(|path| path.is_ident("test"))
    })
}

/// Follows `path` to the file that defines what it names; `None` for what lies outside the crate.
fn resolve(modules: &BTreeMap<Names, Module>, path: &Names, depth: usize) -> Option<(PathBuf, String)> {
    /// No chain of re-exports is longer; a loop of them does not compile.
    const MAX_REEXPORTS: usize = 8;
    let (length, module) = (0..=path.len()).rev().find_map(|length| {
        let module = modules.get(&path[..length])?;
        Some((length, module))
    })?;
    let Some(name) = path.get(length) else {
        return Some((module.file.clone(), "self".to_owned()));
    };
    if let Some(target) = module.uses.get(name).filter(|_| depth < MAX_REEXPORTS) {
        let mut target = target.clone();
        target.extend(path[length + 1..].iter().cloned());
        return resolve(modules, &target, depth + 1);
    }
    // A path through the root that names no module and no re-export is a name of the root itself, or of another crate.
    Some((module.file.clone(), name.clone()))
}

struct Reader {
    at: Names,
    module: Module,
}

impl Reader {
    /// The path below the root that `names`, written in this module, stands for; `None` for paths into other crates.
    fn absolute(&self, names: &[String]) -> Option<Names> {
        let mut base = self.at.clone();
        let mut rest = names;
        match names.first()?.as_str() {
            "crate" => {
                base.clear();
                rest = &names[1..];
            }
            "self" => rest = &names[1..],
            "super" => {
                while rest.first().is_some_and(|name| name == "super") {
                    base.pop();
                    rest = &rest[1..];
                }
            }
            first if self.module.children.contains(first) => {}
            _ => return None,
        }
        base.extend(rest.iter().cloned());
        Some(base)
    }

    fn use_tree(&mut self, tree: &UseTree, prefix: &mut Names, is_reexport: bool) {
        let (name, alias) = match tree {
            UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                self.use_tree(&path.tree, prefix, is_reexport);
                prefix.pop();
                return;
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.use_tree(tree, prefix, is_reexport);
                }
                return;
            }
            UseTree::Glob(_) => (None, None),
            UseTree::Name(name) => (Some(name.ident.to_string()), Some(name.ident.to_string())),
            UseTree::Rename(rename) => (Some(rename.ident.to_string()), Some(rename.rename.to_string())),
        };
        let mut names = prefix.clone();
        let is_self = name.as_deref() == Some("self");
        names.extend(name.filter(|_| !is_self));
        let Some(path) = self.absolute(&names) else { return };
        let alias = if is_self { prefix.last().cloned() } else { alias };
        if let Some(alias) = alias {
            self.module.uses.insert(alias, path.clone());
        }
        if !is_reexport {
            self.module.named.insert(path);
        }
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        // A module with a body of its own inside a file is for tests here; files are read one by one.
        if !is_test(&module.attrs) {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        let is_reexport = !matches!(item.vis, Visibility::Inherited);
        if !is_test(&item.attrs) {
            self.use_tree(&item.tree, &mut Vec::new(), is_reexport);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Names = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if path.leading_colon.is_none()
            && names.len() > 1
            && let Some(path) = self.absolute(&names)
        {
            self.module.named.insert(path);
        }
        visit::visit_path(self, path);
    }
}
