//! Space that is kept for making room: a file that goes when a stop or a teardown finds the disk full.
//!
//! Both write little (a journal, a record), but without it they could not begin, and a full disk would be one that nobody
//! can empty.

use std::sync::atomic::{AtomicBool, Ordering};

use super::dir::Dir;
use super::workshop::Workshop;

const RESERVE: &str = "reserve";
/// Bytes: enough for some dozen journals and records.
const SIZE: usize = 512 << 10;

/// The file, or the lack of it.
#[derive(Debug)]
pub(super) struct Reserve {
    there: AtomicBool,
}

impl Reserve {
    /// Makes the file if it is missing. A disk that has no room for it is no reason not to start.
    pub(super) fn open(own: &Dir, workshop: &Workshop) -> Self {
        let there =
            own.stat_of(RESERVE).ok().flatten().is_some_and(|stat| u64::try_from(stat.st_size) == Ok(SIZE as u64));
        let reserve = Self { there: AtomicBool::new(there) };
        reserve.refill(own, workshop);
        reserve
    }

    /// Gives the space back; whether there was any.
    pub(super) fn release(&self, own: &Dir) -> bool {
        if !self.there.swap(false, Ordering::AcqRel) {
            return false;
        }
        tracing::warn!("the disk is full: the reserve is released");
        own.remove_file(RESERVE).is_ok_and(|was_there| was_there)
    }

    /// Makes the file again once there is room. Tried after what may have made some; a failure is for the next time.
    pub(super) fn refill(&self, own: &Dir, workshop: &Workshop) {
        if self.there.swap(true, Ordering::AcqRel) {
            return;
        }
        // Written, not merely allocated: some file systems promise space that they do not have.
        let made = workshop.write(own, RESERVE, &vec![0; SIZE], 0o600, None).and_then(|()| own.sync());
        if let Err(error) = made {
            self.there.store(false, Ordering::Release);
            tracing::warn!(%error, "there is no room for the reserve that teardowns need on a full disk");
        }
    }
}
