//! The data directory of `millrace standalone`.

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{ErrorKind, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// The mode of files with secrets: only the owner reads them.
const SECRET_MODE: u32 = 0o600;

/// The data directory, locked by this process.
#[derive(Debug)]
pub(crate) struct DataDir {
    root: PathBuf,
    _lock: File,
}

/// The content of `ready.json`: the URLs of the nodes once all of them accept work.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Ready {
    pub(crate) rtmp: String,
    pub(crate) edge: String,
    pub(crate) control: String,
}

impl DataDir {
    /// Opens the directory, creates it if it is absent, and takes its lock, which is released when the process ends.
    pub(crate) fn open(root: &Path) -> anyhow::Result<Self> {
        let located = || format!("data directory {}", root.display());
        fs::create_dir_all(root).with_context(located)?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(root.join("lock"));
        let lock = lock.with_context(located)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                anyhow::bail!("{} is in use by another millrace", located());
            }
            Err(TryLockError::Error(error)) => return Err(error).with_context(located),
        }
        let data = Self { root: root.to_owned(), _lock: lock };
        data.clear_ready();
        Ok(data)
    }

    pub(crate) fn state_file(&self) -> PathBuf {
        self.root.join("state.redb")
    }

    pub(crate) fn media_dir(&self) -> PathBuf {
        self.root.join("media")
    }

    /// Returns the token made at an earlier start, or makes one; `true` if it is new.
    pub(crate) fn admin_token(&self) -> anyhow::Result<(String, bool)> {
        if let Some(token) = admin_token_in(&self.root)? {
            return Ok((token, false));
        }
        let token = format!("{:032x}", rand::random::<u128>());
        self.replace("admin-token", format!("{token}\n").as_bytes())?;
        Ok((token, true))
    }

    /// Writes `ready.json`, whole or not at all.
    pub(crate) fn write_ready(&self, ready: &Ready) -> anyhow::Result<()> {
        self.replace("ready.json", &serde_json::to_vec(ready)?)
    }

    pub(crate) fn clear_ready(&self) {
        // The file may be absent already.
        let _ = fs::remove_file(self.root.join("ready.json"));
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        let (path, new) = (self.root.join(name), self.root.join(format!("{name}.new")));
        let write = || -> std::io::Result<()> {
            let mut file =
                OpenOptions::new().create(true).truncate(true).write(true).mode(SECRET_MODE).open(&new)?;
            file.set_permissions(Permissions::from_mode(SECRET_MODE))?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&new, &path)
        };
        write().with_context(|| path.display().to_string())
    }
}

/// Returns the admin token kept in a data directory.
pub(crate) fn admin_token_in(root: &Path) -> anyhow::Result<Option<String>> {
    let text = text_of(&root.join("admin-token"))?;
    Ok(text.map(|text| text.trim().to_owned()).filter(|token| !token.is_empty()))
}

/// Returns the URL of the API of the `standalone` that runs on a data directory.
pub(crate) fn control_url_in(root: &Path) -> anyhow::Result<Option<String>> {
    let path = root.join("ready.json");
    let Some(text) = text_of(&path)? else { return Ok(None) };
    let ready: Ready = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
    Ok(Some(ready.control))
}

/// Returns the content of a file; `None` if there is none.
fn text_of(path: &Path) -> anyhow::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

/// Returns an address to connect to from this machine: the unspecified address becomes loopback.
pub(crate) fn reachable(addr: SocketAddr) -> SocketAddr {
    let ip = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, addr.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_directory_is_refused_while_another_process_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let held = DataDir::open(dir.path()).unwrap();
        let error = DataDir::open(dir.path()).unwrap_err().to_string();
        assert!(error.ends_with("is in use by another millrace"), "{error}");
        drop(held);
        DataDir::open(dir.path()).unwrap();
    }

    #[test]
    fn admin_token_is_kept_and_readable_by_the_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        let (token, new) = data.admin_token().unwrap();
        assert!(new && token.len() == 32);
        assert_eq!(data.admin_token().unwrap(), (token, false));
        let mode = fs::metadata(dir.path().join("admin-token")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, SECRET_MODE);
    }

    #[test]
    fn unspecified_address_is_reached_over_loopback() {
        assert_eq!(reachable(([0, 0, 0, 0], 80).into()), ([127, 0, 0, 1], 80).into());
        assert_eq!(reachable(([192, 0, 2, 1], 80).into()), ([192, 0, 2, 1], 80).into());
    }
}
