//! Launches in the memory of this process, which no other process sees.

use super::{Backend, Failure, Launch, NewLaunch, Page};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Most launches: with the longest documents, a few hundred megabytes.
const MOST: usize = 100_000;

/// The list. A launch stands at the index below its number.
#[derive(Default)]
pub(super) struct Memory(Mutex<Vec<Launch>>);

impl Memory {
    fn launches(&self) -> MutexGuard<'_, Vec<Launch>> {
        // Each change is one push or one assignment, so a panic leaves no half of it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn index(flight: i64) -> usize {
    usize::try_from(flight - 1).unwrap_or(usize::MAX)
}

impl Backend for Memory {
    fn list(&self, page: Page) -> Result<Vec<Launch>, Failure> {
        let start = index(*page.flights().start());
        Ok(self.launches().iter().skip(start).take(page.limit as usize).cloned().collect())
    }

    fn one(&self, flight: i64) -> Result<Option<Launch>, Failure> {
        Ok(self.launches().get(index(flight)).cloned())
    }

    fn add(&self, new: NewLaunch) -> Result<Launch, Failure> {
        let mut launches = self.launches();
        if launches.len() >= MOST {
            return Err(Failure(format!("there is room for {MOST} launches")));
        }
        let flight_number = i64::try_from(launches.len()).unwrap_or(i64::MAX - 1) + 1;
        let launch = Launch { flight_number, chosen: new };
        launches.push(launch.clone());
        Ok(launch)
    }

    fn abort(&self, flight: i64) -> Result<Option<Launch>, Failure> {
        let mut launches = self.launches();
        let found = launches.get_mut(index(flight));
        Ok(found.map(|launch| {
            launch.chosen.abort();
            launch.clone()
        }))
    }

    fn ping(&self) -> Result<(), Failure> {
        Ok(())
    }
}
