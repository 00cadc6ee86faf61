//! Whether what was called durable is still there: sled opens a file whose end is missing as if nothing had happened.
//!
//! Every flush numbers itself in the database, and afterwards, outside of it, in the file `tally`: so the database is
//! never behind the file, unless something took records away that had been confirmed. The file holds the length of sled's
//! log as well, since what is missing may lie in the middle: where the log has become shorter, every record is read.
//! sled itself cuts off what it no longer needs.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::Path,
};

use super::Holds;

const NAME: &str = "tally";
const TREE: &str = "tally";
const KEY: &str = "flushes";
/// Two numbers of eight bytes.
const RECORD: usize = 16;

/// The count of one open database.
pub(super) struct Tally {
    tree: sled::Tree,
    file: File,
    flushes: u64,
}

/// What is wrong with a database.
#[derive(Debug, thiserror::Error)]
pub(super) enum Gap {
    #[error("the last {0} writes that were confirmed are missing; to go on without them, delete its file `tally`")]
    Behind(u64),
    #[error("its log was cut short, and records in it cannot be read")]
    Unreadable(#[source] sled::Error),
    #[error(transparent)]
    Sled(#[from] sled::Error),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Tally {
    /// Holds the database against its tally; `length` is what the log had before sled touched it. Without the file
    /// whatever is there is taken: it is new, or a person deleted the file since a part is better than nothing.
    pub(super) fn open(path: &Path, db: &sled::Db, length: u64, holds: Holds) -> Result<Self, Gap> {
        let tree = db.open_tree(TREE)?;
        let flushes = tree.get(KEY)?.and_then(|bytes| Some(u64::from_be_bytes(bytes.as_ref().try_into().ok()?)));
        let flushes = flushes.unwrap_or(0);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path.join(NAME))?;
        if let Some((noted, then)) = read(&file)? {
            // A shortcut may forget; the store remembers.
            if flushes < noted && holds == Holds::Records {
                return Err(Gap::Behind(noted - flushes));
            }
            if length < then {
                read_all(db)?;
            }
        }
        Ok(Self { tree, file, flushes })
    }

    /// Numbers the flush that comes now.
    pub(super) fn count(&mut self) -> sled::Result<()> {
        self.flushes += 1;
        self.tree.insert(KEY, &self.flushes.to_be_bytes()).map(drop)
    }

    /// Says outside of the database that this flush is on disk. Not synced itself: a file that is behind proves less,
    /// and is never wrong.
    pub(super) fn note(&self, log: &File) -> io::Result<()> {
        let mut record = [0; RECORD];
        let (flushes, length) = record.split_at_mut(RECORD / 2);
        flushes.copy_from_slice(&self.flushes.to_be_bytes());
        length.copy_from_slice(&log.metadata()?.len().to_be_bytes());
        self.file.write_all_at(&record, 0)
    }
}

/// The length of the log in this directory; 0 where there is none yet.
pub(super) fn log_length(path: &Path) -> io::Result<u64> {
    match std::fs::metadata(path.join("db")) {
        Ok(metadata) => Ok(metadata.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

/// Flushes and the log's length, as they were noted last; `None` where nothing was.
fn read(file: &File) -> io::Result<Option<(u64, u64)>> {
    let mut record = [0; RECORD];
    match file.read_exact_at(&mut record, 0) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let (halves, _) = record.as_chunks::<8>();
    Ok(Some((u64::from_be_bytes(halves[0]), u64::from_be_bytes(halves[1]))))
}

fn read_all(db: &sled::Db) -> Result<(), Gap> {
    for name in db.tree_names() {
        for record in &db.open_tree(name)? {
            record.map_err(Gap::Unreadable)?;
        }
    }
    Ok(())
}
