//! Embeds the watch page built in `web/dist`; without it, a page that explains how to build it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

const MISSING: &str = "<!doctype html><html lang=en><title>Millrace</title><p>This build has no watch page. \
    Run <code>make web</code> and build again.</p></html>";

fn content_type(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("txt") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

fn files(dist: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(dist)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.is_file())
        .collect();
    found.sort();
    found
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=web/dist");
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let dist = root.join("web/dist");
    let mut code = String::from("pub(super) static FILES: &[(&str, &str, &[u8])] = &[\n");
    if dist.join("watch.html").is_file() {
        for path in files(&dist) {
            let name =
                path.file_name().and_then(|n| n.to_str()).ok_or("a file name in web/dist is not UTF-8")?;
            // A copy beside the code that names it: clones share a target directory, and one may be gone.
            fs::copy(&path, out.join(name))?;
            let bytes = format!("include_bytes!(concat!(env!(\"OUT_DIR\"), \"/\", {name:?}))");
            writeln!(code, "    ({name:?}, {:?}, {bytes}),", content_type(name))?;
        }
    } else {
        println!(
            "cargo:warning=the watch page is not built: run `make web` (npm ci && npm run build in edge-node/web)"
        );
        for name in ["watch.html", "index.html"] {
            writeln!(code, "    ({name:?}, \"text/html; charset=utf-8\", {MISSING:?}.as_bytes()),")?;
        }
    }
    code.push_str("];\n");
    fs::write(out.join("page.rs"), code)?;
    Ok(())
}
