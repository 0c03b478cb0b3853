//! Disks that are full or read-only, by the kernel's own means. Mounting takes root, or `sudo` without a password.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// The name of the file that takes the room.
const FILLER: &str = ".filler";
/// Bytes that the filler grows by.
const STEP: usize = 64 << 10;

/// A small file system in memory, unmounted with the value.
#[derive(Debug)]
pub struct SmallDisk {
    dir: PathBuf,
    /// The directory, if it is the disk's own.
    #[allow(dead_code, reason = "it is deleted with the value")]
    own: Option<TempDir>,
}

impl SmallDisk {
    /// Mounts a file system of `kib` KiB.
    pub fn of_kib(kib: u32) -> Self {
        let own = TempDir::with_prefix("millrace-disk-").expect("make a temporary directory");
        let mut disk = Self::over(own.path(), kib);
        disk.own = Some(own);
        disk
    }

    /// Mounts a file system of `kib` KiB over an existing directory, whose content it hides.
    pub fn over(dir: &Path, kib: u32) -> Self {
        mount(&["-t", "tmpfs", "-o", &format!("size={kib}k"), "tmpfs"], dir);
        Self { dir: dir.to_owned(), own: None }
    }

    /// Returns its directory.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Fills it to its last block.
    pub fn fill(&self) {
        fill(self.path());
    }

    /// Makes room again.
    pub fn make_room(&self) {
        fs::remove_file(self.path().join(FILLER)).expect("remove the filler");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        unmount(self.path());
    }
}

/// Writes a file into `dir` until the disk takes no more.
fn fill(dir: &Path) {
    let mut file = File::options().create(true).append(true).open(dir.join(FILLER)).expect("open the filler");
    let mut step = vec![0_u8; STEP];
    while !step.is_empty() {
        match file.write(&step) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::StorageFull => step.truncate(step.len() / 2),
            Err(error) => panic!("fill {}: {error}", dir.display()),
        }
    }
}

/// A directory that cannot be written to, until the value is dropped.
#[derive(Debug)]
pub struct ReadOnly {
    dir: PathBuf,
}

impl ReadOnly {
    /// Mounts `dir` over itself, read-only: files that are opened from now on cannot be written.
    pub fn over(dir: &Path) -> Self {
        mount(&["--bind", &dir.display().to_string()], dir);
        let read_only = Self { dir: dir.to_owned() };
        mount(&["-o", "remount,bind,ro"], dir);
        read_only
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        unmount(&self.dir);
    }
}

fn mount(args: &[&str], dir: &Path) {
    let done = run("mount", args, dir);
    assert!(
        done,
        "mount {args:?} {} failed: this test runs as root, or with sudo without a password",
        dir.display()
    );
}

fn unmount(dir: &Path) {
    // A test that fails may have files open; the mount goes with the last of them.
    run("umount", &["--lazy"], dir);
}

fn run(program: &str, args: &[&str], dir: &Path) -> bool {
    let as_is =
        |command: &mut Command| command.args(args).arg(dir).status().is_ok_and(|status| status.success());
    as_is(&mut Command::new(program)) || as_is(Command::new("sudo").args(["--non-interactive", program]))
}
