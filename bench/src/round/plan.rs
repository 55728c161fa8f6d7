//! How long a round takes, and what is left out of one that takes too long.

use crate::catalog::Server;
use crate::experiment::{Mode, Settings};

/// A standard round of every server ends within so many seconds.
const STANDARD_S: f64 = 75.0 * 60.0;

/// Leaves out what is missed least until a round of all servers fits into its time, and says what that was.
pub fn cut(servers: &mut Vec<Server>, settings: &mut Settings) {
    let fits = |servers: &[Server], settings: &Settings| {
        settings.mode == Mode::Thorough || settings.mode == Mode::Standard && seconds(servers, settings) <= STANDARD_S
    };
    if !fits(servers, settings) {
        let is_variant = |server: &Server| server.variant_of.is_some();
        let variants: Vec<&str> = servers.iter().filter(|one| is_variant(one)).map(|one| one.name.as_str()).collect();
        settings.left_out.push(format!("variants of others: {}", variants.join(", ")));
        servers.retain(|server| !is_variant(server));
    }
    // A quick round has only one of each of these.
    if !fits(servers, settings) && settings.tabs.len() > 1 {
        settings.left_out.extend(settings.tabs.drain(1..).map(|tabs| format!("{tabs} tabs")));
    }
    if !fits(servers, settings) && settings.is_pipelined {
        settings.is_pipelined = false;
        settings.left_out.push("pipelined throughput".into());
    }
}

/// About how long a round takes.
fn seconds(servers: &[Server], settings: &Settings) -> f64 {
    let all: u64 = settings.experiments.iter().map(|experiment| weight(experiment, settings)).sum();
    (all * servers.len() as u64 * u64::from(settings.trials)) as f64 / 10.0
}

/// About how long an experiment takes, in tenths of a second.
pub fn weight(experiment: &str, settings: &Settings) -> u64 {
    match experiment {
        "two-tabs" => 5 + settings.tabs.iter().map(|tabs| *tabs as u64 * settings.tab_ms / 150).sum::<u64>(),
        "collateral" => {
            20 + 11 * (settings.blockers.len() * settings.kinds.len()) as u64
                + match settings.mode {
                    Mode::Thorough => 900,
                    _ => 0,
                }
        }
        "throughput" => 5 + settings.throughput_ms / 70 * (1 + u64::from(settings.is_pipelined)),
        "dose-response" => 220,
        "blocking-functions" => 120,
        "latency" => 55,
        "scaling" => 160,
        "reload" => {
            if settings.mode == Mode::Quick {
                250
            } else {
                500
            }
        }
        _ => 5 + settings.idle.iter().sum::<usize>() as u64 / 700,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog;

    fn planned(mode: Mode, count: usize) -> (Vec<Server>, Settings) {
        let all = catalog::load().expect("the catalog");
        let mut servers: Vec<Server> = all.into_iter().cycle().take(count).collect();
        let mut settings = Settings::of(mode, 2, 1);
        cut(&mut servers, &mut settings);
        (servers, settings)
    }

    #[test]
    fn a_round_of_few_servers_leaves_nothing_out() {
        let (servers, settings) = planned(Mode::Standard, 30);
        assert_eq!(servers.len(), 30);
        assert!(settings.left_out.is_empty() && settings.is_pipelined && settings.tabs.len() > 1);
    }

    #[test]
    fn a_round_of_many_servers_leaves_out_variants_and_says_so() {
        let (servers, settings) = planned(Mode::Standard, 44);
        assert!(servers.iter().all(|server| server.variant_of.is_none()));
        assert!(settings.left_out[0].contains("tokio-unstable"), "{:?}", settings.left_out);
        assert!(seconds(&servers, &settings) <= STANDARD_S);
    }

    #[test]
    fn a_thorough_round_has_all_the_time_it_needs() {
        let (servers, settings) = planned(Mode::Thorough, 44);
        assert_eq!((servers.len(), settings.left_out.len()), (44, 0));
    }
}
