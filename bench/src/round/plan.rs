//! The time budget of a round, and what is left out of one that takes too long.

use super::header::Settings;
use crate::catalog::Server;
use crate::measure::Mode;
use anyhow::Result;

/// A standard round of every server ends within this time, in seconds: seven trials of all of them fit, with what becomes of launches.
const STANDARD_S: f64 = 240.0 * 60.0;

/// Leaves out what is missed least until a round of all servers fits into its time, and notes what that was.
///
/// # Errors
/// Settings that are not those of their experiment.
pub fn cut(servers: &mut Vec<Server>, settings: &mut Settings) -> Result<()> {
    if settings.conditions.mode == Mode::Thorough {
        return Ok(());
    }
    let is_quick = settings.conditions.mode == Mode::Quick;
    if is_quick || seconds(servers, settings)? > STANDARD_S {
        let is_variant = |server: &Server| server.variant_of.is_some();
        let variants: Vec<&str> = servers.iter().filter(|one| is_variant(one)).map(|one| one.name.as_str()).collect();
        if !variants.is_empty() {
            settings.left_out.push(format!("variants of others: {}", variants.join(", ")));
        }
        servers.retain(|server| !is_variant(server));
    }
    for one in crate::experiment::ALL {
        if is_quick || seconds(servers, settings)? <= STANDARD_S {
            break;
        }
        if let Some(own) = settings.experiments.get_mut(one.name()) {
            settings.left_out.extend(one.reduce(own)?);
        }
    }
    Ok(())
}

/// About how long a round takes.
fn seconds(servers: &[Server], settings: &Settings) -> Result<f64> {
    let each: f64 = settings.experiments().map(|(one, own)| one.seconds(own)).sum::<Result<f64>>()?;
    Ok(each * servers.len() as f64 * f64::from(settings.trials))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog;
    use crate::experiment::Choices;

    fn planned(mode: Mode, count: usize) -> (Vec<Server>, Settings) {
        let all = catalog::load().expect("the catalog");
        let mut servers: Vec<Server> = all.into_iter().cycle().take(count).collect();
        let mut settings = Settings::new(mode, &[], &Choices::default(), 1).unwrap();
        cut(&mut servers, &mut settings).unwrap();
        (servers, settings)
    }

    #[test]
    fn a_round_of_few_servers_leaves_nothing_out() {
        let (servers, settings) = planned(Mode::Standard, 20);
        assert_eq!((servers.len(), settings.left_out.len()), (20, 0));
    }

    #[test]
    fn a_round_of_many_servers_leaves_out_variants_and_says_so() {
        let (servers, settings) = planned(Mode::Standard, 120);
        assert!(servers.iter().all(|server| server.variant_of.is_none()));
        assert!(settings.left_out[0].contains("tokio-unstable"), "{:?}", settings.left_out);
    }

    #[test]
    fn a_thorough_round_has_all_the_time_it_needs() {
        let (servers, settings) = planned(Mode::Thorough, 44);
        assert_eq!((servers.len(), settings.left_out.len()), (44, 0));
    }
}
