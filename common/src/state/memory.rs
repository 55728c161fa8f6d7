//! Launches in the memory of this process, which no other process sees.

use super::{Backend, Failure, Launch, NewLaunch, Page};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Most that launches take, in MiB.
const MOST_MIB: usize = 256;

/// The list.
#[derive(Default)]
pub(super) struct Memory(Mutex<List>);

/// A launch stands at the index below its number.
#[derive(Default)]
struct List {
    launches: Vec<Launch>,
    /// What they take, in bytes.
    size: usize,
}

impl Memory {
    fn list(&self) -> MutexGuard<'_, List> {
        // Each change is one push or one assignment, so a panic leaves no half of it that matters.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn index(flight: i64) -> usize {
    usize::try_from(flight - 1).unwrap_or(usize::MAX)
}

impl Backend for Memory {
    fn list(&self, page: Page) -> Result<Vec<Launch>, Failure> {
        let start = index(*page.flights().start());
        Ok(self.list().launches.iter().skip(start).take(page.limit as usize).cloned().collect())
    }

    fn one(&self, flight: i64) -> Result<Option<Launch>, Failure> {
        Ok(self.list().launches.get(index(flight)).cloned())
    }

    fn add(&self, new: NewLaunch) -> Result<Launch, Failure> {
        let mut list = self.list();
        let size = list.size + new.size();
        if size > MOST_MIB << 20 {
            return Err(Failure(format!("there is room for {MOST_MIB} MiB of launches")));
        }
        let flight_number = i64::try_from(list.launches.len()).unwrap_or(i64::MAX - 1) + 1;
        let launch = Launch { flight_number, chosen: new };
        list.launches.push(launch.clone());
        list.size = size;
        Ok(launch)
    }

    fn abort(&self, flight: i64) -> Result<Option<Launch>, Failure> {
        let mut list = self.list();
        let found = list.launches.get_mut(index(flight));
        Ok(found.map(|launch| {
            launch.chosen.abort();
            launch.clone()
        }))
    }

    fn ping(&self) -> Result<(), Failure> {
        Ok(())
    }
}
