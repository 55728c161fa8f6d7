//! Many comparisons at once: which are discoveries, and what share of them chance explains.

/// Which of these p-values are discoveries at the given rate of false ones (Benjamini and Hochberg, 1995).
pub fn discoveries(p_values: &[f64], rate: f64) -> Vec<bool> {
    let mut sorted = p_values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let count = sorted.len() as f64;
    let ranked = sorted.iter().enumerate().filter(|(rank, p)| **p <= (rank + 1) as f64 / count * rate);
    let threshold = ranked.map(|(_, p)| *p).fold(-1.0, f64::max);
    p_values.iter().map(|p| *p <= threshold).collect()
}

/// The lower end of the one-sided 95 % interval of a share of which `hits` of `all` were seen (Clopper and Pearson, 1934): the
/// smallest share that would give as many hits with a chance of 5 %.
pub fn share_at_least(hits: usize, all: usize) -> f64 {
    if hits == 0 {
        return 0.0;
    }
    let (mut low, mut high) = (0.0, 1.0);
    // Each step halves what is left: sixty are all that a double can hold.
    for _ in 0..60 {
        let share = f64::midpoint(low, high);
        if binomial_tail(hits, all, share) < 0.05 { low = share } else { high = share }
    }
    low
}

/// P(X >= hits) of a binomial with `all` draws.
fn binomial_tail(hits: usize, all: usize, share: f64) -> f64 {
    let log_choose =
        |k: usize| libm::lgamma(all as f64 + 1.0) - libm::lgamma(k as f64 + 1.0) - libm::lgamma((all - k) as f64 + 1.0);
    (hits..=all).map(|k| (log_choose(k) + k as f64 * share.ln() + (all - k) as f64 * (-share).ln_1p()).exp()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn benjamini_hochberg_reproduces_the_published_example() {
        // The 15 p-values of the paper's section 4: the first four are discoveries at 5 %.
        let p =
            [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0];
        assert_eq!(discoveries(&p, 0.05).iter().filter(|is| **is).count(), 4);
        assert!(discoveries(&[], 0.05).is_empty());
        assert_eq!(discoveries(&[0.9, 0.04], 0.05), [false, false]);
    }

    #[test]
    fn bounds_of_shares_agree_with_published_values() {
        // Clopper-Pearson, one-sided: 10 of 100 gives 0.0553; all of n gives 0.05 to the power of 1/n.
        assert!((share_at_least(10, 100) - 0.0553).abs() < 1e-4, "{}", share_at_least(10, 100));
        assert!((share_at_least(5, 5) - 0.05_f64.powf(0.2)).abs() < 1e-9);
        assert_eq!(share_at_least(0, 400), 0.0);
    }
}
