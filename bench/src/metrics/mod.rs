//! Measured quantities as values: a metric with its unit and direction, what one trial says of it, and what all trials say.
//!
//! A value is a type until it is printed: exact, a lower bound, never reached, or not reached. No infinity and no `null` stands for any
//! of them.

mod cell;
mod change;
mod metric;
mod numbers;
mod percentile;
mod value;

pub use cell::{Cell, Summary};
pub use change::Change;
pub use metric::{Better, Family, Metric, Role, Unit};
pub use numbers::{Numbers, Reading};
pub use percentile::Percentile;
pub use value::Value;

/// The limits of response-time research, in ms: up to the first a response feels instant, up to the second it keeps the flow of
/// thought, up to the third it keeps the attention (Miller 1968, Nielsen 1993).
pub const LIMITS_MS: [f64; 3] = [100.0, 1000.0, 10_000.0];
