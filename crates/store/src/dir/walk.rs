//! Listing a directory tree in the byte order of its keys.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::SystemTime;

use super::files::{io_error, read_trailer};
use crate::{ListEntry, ListPage, StoreError};

struct Walk<'a> {
    root: &'a Path,
    prefix: &'a str,
    after: &'a str,
    limit: usize,
    page: ListPage,
}

pub(super) fn list(
    root: &Path,
    prefix: &str,
    after: Option<&str>,
    limit: usize,
) -> Result<ListPage, StoreError> {
    let mut walk = Walk { root, prefix, after: after.unwrap_or(""), limit, page: ListPage::default() };
    let start = prefix.rfind('/').map_or("", |slash| &prefix[..=slash]);
    walk.visit(start).map_err(|error| io_error(&error, prefix))?;
    Ok(walk.page)
}

impl Walk<'_> {
    /// Visits the directory `dir`, which is empty or ends with a slash.
    fn visit(&mut self, dir: &str) -> io::Result<()> {
        let entries = match fs::read_dir(self.root.join(dir)) {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(());
            }
            entries => entries?,
        };
        let mut keys = Vec::new();
        for entry in entries {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            if name.starts_with('.') {
                continue;
            }
            // A directory sorts as its keys do, with the slash.
            let slash = if entry.file_type()?.is_dir() { "/" } else { "" };
            keys.push(format!("{dir}{name}{slash}"));
        }
        keys.sort_unstable();
        for key in keys {
            if self.page.more {
                break;
            }
            if key.ends_with('/') {
                self.descend(&key)?;
            } else if key.as_str() > self.after && key.starts_with(self.prefix) {
                self.add(key)?;
            }
        }
        Ok(())
    }

    fn descend(&mut self, dir: &str) -> io::Result<()> {
        let may_match = dir.starts_with(self.prefix) || self.prefix.starts_with(dir);
        let all_before = dir < self.after && !self.after.starts_with(dir);
        if may_match && !all_before { self.visit(dir) } else { Ok(()) }
    }

    fn add(&mut self, key: String) -> io::Result<()> {
        if self.page.entries.len() == self.limit {
            self.page.more = true;
            return Ok(());
        }
        let found = File::open(self.root.join(&key)).and_then(|mut file| {
            let stat = file.metadata()?;
            let trailer = read_trailer(&mut file, &key, stat.len())?.map_or(0, |trailer| trailer.len);
            Ok((stat.len() - trailer, stat.modified().unwrap_or(SystemTime::UNIX_EPOCH)))
        });
        match found {
            Ok((size, modified)) => self.page.entries.push(ListEntry { key, size, modified }),
            // Deleted while the directory was read.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}
