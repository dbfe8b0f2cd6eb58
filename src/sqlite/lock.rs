//! A lock file: a second process that wants the same files is refused, and told who has them.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::sqlite::error::SqliteError;

/// Held until it is dropped or the process ends, however it ends.
#[derive(Debug)]
pub struct FileLock {
    path: PathBuf,
    file: File,
}

impl FileLock {
    /// Takes the lock, making the file and its folder where they are missing. Blocking.
    ///
    /// # Errors
    /// `Held` with the holder's process id; `File` if the file can't be made.
    pub fn take(path: &Path) -> Result<Self, SqliteError> {
        let fail = |doing| move |cause| SqliteError::file(doing, path, cause);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)
                .map_err(|cause| SqliteError::file("making folder", folder, cause))?;
        }
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(fail("opening lock file"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(SqliteError::Held {
                    file: path.to_owned(),
                    holder: holder(&mut file),
                });
            }
            Err(TryLockError::Error(cause)) => return Err(fail("locking")(cause)),
        }
        file.set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .and_then(|_| writeln!(file, "{}", std::process::id()))
            .map_err(fail("writing lock file"))?;
        Ok(Self {
            path: path.to_owned(),
            file,
        })
    }

    /// The lock file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for FileLock {
    /// A child that is being started has a copy of every open file until it runs its program, and a lock lasts as long
    /// as any copy: it is given back, not only closed (Linux man-pages, flock(2)).
    fn drop(&mut self) {
        if let Err(cause) = self.file.unlock() {
            tracing::debug!(file = %self.path.display(), %cause, "lock file is closed without being unlocked");
        }
    }
}

/// The process id that the holder wrote; it may be just about to.
fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let read = file.take(32).read_to_string(&mut text);
    match (read, text.trim()) {
        (Ok(_), pid) if !pid.is_empty() => format!("process {pid}"),
        _ => "another process".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_is_dropped_is_free_though_a_child_has_a_copy_of_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.db.lock");
        let lock = FileLock::take(&path).unwrap();
        let copy = lock.file.try_clone().unwrap();
        assert!(matches!(
            FileLock::take(&path),
            Err(SqliteError::Held { .. })
        ));
        drop(lock);
        let again = FileLock::take(&path).unwrap();
        drop(copy);
        assert!(matches!(
            FileLock::take(&path),
            Err(SqliteError::Held { .. })
        ));
        drop(again);
        FileLock::take(&path).unwrap();
    }
}
