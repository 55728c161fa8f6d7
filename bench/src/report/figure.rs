//! A figure as a value: lines over places, one for each server, and marks across them.

use super::cell::Grade;
use crate::metrics::{LIMITS_MS, Percentile, Summary, Value};
use serde::{Serialize, Serializer};

/// A figure.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// A word for it, unique in its round.
    pub name: String,
    /// One line above it.
    pub title: String,
    /// The places.
    pub x: Places,
    /// The quantity.
    pub y: Scale,
    /// A line for each server that has a number.
    pub series: Vec<Series>,
}

/// The horizontal axis.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Places {
    /// Its label.
    pub label: String,
    /// The position of each place, and its words.
    #[serde(serialize_with = "short_places")]
    pub ticks: Vec<(f64, String)>,
    /// Marks between them, with their words.
    #[serde(serialize_with = "short_places")]
    pub marks: Vec<(f64, String)>,
}

/// The vertical axis.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Scale {
    /// Its label.
    pub label: String,
    /// The unit behind its numbers.
    pub unit: &'static str,
    /// It is logarithmic.
    pub is_log: bool,
    /// Limits that are drawn across, with their words.
    pub limits: Vec<(f64, String)>,
}

/// One server's line.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Series {
    /// The server.
    pub name: String,
    /// Its points, from left to right.
    pub points: Vec<Point>,
}

/// A point: the place and the median, and how the trials lie around it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// The position of its place.
    pub x: f64,
    /// The median.
    pub y: f64,
    /// How the trials lie around the median, where that is known.
    pub interval: Option<Interval>,
    /// The true value is larger.
    pub is_bound: bool,
    /// The trials that it rests on.
    pub counted: Counted,
}

/// The trials behind a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// Those that are valid.
    pub valid: usize,
    /// All of them.
    pub all: usize,
}

impl Counted {
    /// Some of the trials are invalid.
    pub fn has_invalid(self) -> bool {
        self.valid < self.all
    }
}

/// How trials lie around their median.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// The ends of the median's interval.
    ends: Option<(f64, f64)>,
    /// The middles of two heaps, if the trials fall into two: no trial was near the median of both.
    heaps: Option<(f64, f64)>,
}

impl Interval {
    /// `None` where neither is known.
    fn of(ends: Option<(f64, f64)>, heaps: Option<(f64, f64)>) -> Option<Self> {
        (ends.is_some() || heaps.is_some()).then_some(Interval { ends, heaps })
    }
}

impl Point {
    /// The point of a summary; `None` where it holds no number.
    pub fn of(x: f64, summary: &Summary, counted: Counted) -> Option<Self> {
        let number = |value: Value| match value {
            Value::Never { tried } => Some(tried),
            other => other.number(),
        };
        let ends = summary.interval.and_then(|(low, high)| Some((number(low)?, number(high)?)));
        let interval = Interval::of(ends, summary.heaps);
        Some(Point { x, y: number(summary.median)?, interval, is_bound: summary.median.exact().is_none(), counted })
    }

    /// The middles of two heaps, if the trials fall into two.
    pub fn heaps(&self) -> Option<(f64, f64)> {
        self.interval.and_then(|all| all.heaps)
    }
}

/// A number with four decimal places, as a page has it: points and the ticks below them have to be equal there.
fn short(number: f64) -> f64 {
    (number * 1e4).round() / 1e4
}

fn short_places<S: Serializer>(places: &[(f64, String)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(places.iter().map(|(at, word)| (short(*at), word)))
}

/// A list, since a page holds thousands: x, y, the ends of the interval, 1 for a bound, the middles of two heaps, and the numbers of valid and of all
/// trials where some are invalid; what is missing at the end is left out.
impl Serialize for Point {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let pair = |pair: Option<(f64, f64)>| [pair.map(|(low, _)| short(low)), pair.map(|(_, high)| short(high))];
        let mut list = vec![Some(short(self.x)), Some(short(self.y))];
        list.extend(pair(self.interval.and_then(|all| all.ends)));
        list.push(self.is_bound.then_some(1.0));
        list.extend(pair(self.heaps()));
        let counted = Some(self.counted).filter(|counted| counted.has_invalid());
        list.extend(pair(counted.map(|counted| (counted.valid as f64, counted.all as f64))));
        list.truncate(list.iter().rposition(Option::is_some).map_or(0, |last| last + 1));
        list.serialize(serializer)
    }
}

impl Scale {
    /// Response times at a percentile, with the limits that people feel.
    pub fn response_time(percentile: Percentile) -> Self {
        let limit = |ms: f64| (ms, format!("{} up to {} s", Grade::of(Value::Exact(ms)).name(), ms / 1e3));
        let label = format!("response time of / ({percentile})");
        Scale { label, unit: "ms", is_log: true, limits: LIMITS_MS.into_iter().map(limit).collect() }
    }

    /// Numbers from zero on.
    pub fn linear(label: impl Into<String>, unit: &'static str) -> Self {
        Scale { label: label.into(), unit, is_log: false, limits: Vec::new() }
    }

    /// Numbers of different magnitudes.
    pub fn logarithmic(label: impl Into<String>, unit: &'static str) -> Self {
        Scale { is_log: true, ..Scale::linear(label, unit) }
    }
}

impl Places {
    /// Places side by side, whatever their numbers.
    pub fn even<T: ToString>(label: impl Into<String>, places: &[T]) -> Self {
        let ticks = places.iter().enumerate().map(|(at, place)| (at as f64, place.to_string())).collect();
        Places { label: label.into(), ticks, marks: Vec::new() }
    }

    /// Places at the logarithm of their numbers.
    pub fn logarithmic(label: impl Into<String>, places: &[f64]) -> Self {
        let ticks = places.iter().map(|place| (place.log10(), place.to_string())).collect();
        Places { label: label.into(), ticks, marks: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Counted = Counted { valid: 6, all: 6 };

    fn summary(median: Value) -> Summary {
        Summary { median, interval: None, trials: 1, heaps: None }
    }

    #[test]
    fn the_limits_say_what_is_felt_up_to_them() {
        let words: Vec<String> = Scale::response_time(Percentile::default()).limits.into_iter().map(|(_, word)| word).collect();
        assert_eq!(words, ["instant up to 0.1 s", "flow up to 1 s", "attention up to 10 s"]);
    }

    #[test]
    fn a_point_is_a_short_list_and_a_bound_says_so() {
        let written = |median| serde_json::to_string(&Point::of(2.0, &summary(median), ALL)).unwrap();
        assert_eq!(written(Value::Exact(98.123_456)), "[2.0,98.1235]");
        assert_eq!(written(Value::AtLeast(504.0)), "[2.0,504.0,null,null,1.0]");
        assert_eq!(written(Value::Never { tried: 64.0 }), "[2.0,64.0,null,null,1.0]");
        assert_eq!(written(Value::NotReached), "null");
    }

    #[test]
    fn a_point_holds_both_heaps_of_its_trials_and_how_many_are_valid_where_some_are_not() {
        let exact = Value::Exact;
        let heaps =
            Summary { interval: Some((exact(460.0), exact(702.0))), heaps: Some((462.0, 700.0)), ..summary(exact(462.0)) };
        let written = |summary, counted| serde_json::to_string(&Point::of(2.0, summary, counted)).unwrap();
        assert_eq!(written(&heaps, ALL), "[2.0,462.0,460.0,702.0,null,462.0,700.0]");
        let one = Counted { valid: 1, all: 6 };
        assert_eq!(written(&summary(exact(599.0)), one), "[2.0,599.0,null,null,null,null,null,1.0,6.0]");
    }

    #[test]
    fn on_a_page_a_point_has_the_position_of_its_place() {
        let places = Places::logarithmic("ms", &[0.1, 0.5, 5.0, 50.0]);
        let written = serde_json::to_value(&places).unwrap();
        for (at, place) in [0.1_f64, 0.5, 5.0, 50.0].into_iter().enumerate() {
            let point = Point { x: place.log10(), y: 1.0, interval: None, is_bound: false, counted: ALL };
            assert_eq!(serde_json::to_value(point).unwrap()[0], written["ticks"][at][0]);
        }
    }
}
