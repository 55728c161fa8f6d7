//! The null test: servers under two names, in a round that stays and calibrates others.

use crate::catalog::{self, Server};
use crate::experiment::Choices;
use crate::measure::Mode;
use crate::metrics::Percentile;
use crate::round::{self, Settings};
use crate::summary;
use crate::verdict::null::{self, NullResult};
use anyhow::{Result, bail};
use std::path::Path;

/// Independent comparisons that a null test has at least: with fewer, even a share of 15 % could pass for chance.
const COMPARISONS: usize = 20;

/// Measures every server under two names, with the settings of a standard round: what differs here is noise.
///
/// # Errors
/// An interrupt; a round that cannot be written; more found than chance finds.
pub fn null_test(servers: &[Server], out: Option<&Path>) -> Result<String> {
    let mut settings = Settings::new(Mode::Standard, &[], &Choices::default(), fastrand::u64(..))?;
    settings.is_null = true;
    let servers = catalog::with_second_names(servers);
    let rows = servers.iter().map(|server| round::row(server, &settings)).collect();
    let mut round = round::begin(out, rows, settings)?;
    round::measure(&mut round, &servers)?;
    summary::write_derived(&round)?;
    let comparisons = null::within(&round::numbers(&round, Percentile::default())?);
    let result = NullResult::of(&comparisons);
    let words = format!(
        "{} of {} independent comparisons of a server with itself have p < 0.05, at least {:.1} % with 95 % confidence; {} comparisons in all; {}",
        result.flagged,
        result.comparisons,
        result.at_least * 100.0,
        comparisons.len(),
        round.folder.display()
    );
    match result.passes() {
        true if result.comparisons >= COMPARISONS => Ok(words),
        true => bail!("{words}: fewer than {COMPARISONS}, too few to tell; name more with --servers"),
        false => bail!("{words}: more than the 5 % that chance finds"),
    }
}
