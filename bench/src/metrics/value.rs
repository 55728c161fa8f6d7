//! What one trial says of a metric.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::cmp::Ordering;
use std::fmt;

/// The value of one trial, or an order statistic of several.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// Measured.
    Exact(f64),
    /// A lower bound: the wait was given up, or the driver was the limit.
    AtLeast(f64),
    /// A threshold that was not reached by the last step tried.
    Never {
        /// The last step.
        tried: f64,
    },
    /// Not measured, since a smaller load had passed the limit already.
    NotReached,
}

impl Value {
    /// The number, or the bound where only a bound is known.
    pub fn number(self) -> Option<f64> {
        match self {
            Value::Exact(value) | Value::AtLeast(value) => Some(value),
            Value::Never { .. } | Value::NotReached => None,
        }
    }

    /// The number, if it is exact.
    pub fn exact(self) -> Option<f64> {
        if let Value::Exact(value) = self { Some(value) } else { None }
    }

    /// Whether it is only known to be larger than something.
    pub fn is_open(self) -> bool {
        !matches!(self, Value::Exact(_))
    }

    /// Applies a function that keeps order, such as a division by a positive number.
    pub fn map(self, change: impl Fn(f64) -> f64) -> Value {
        match self {
            Value::Exact(value) => Value::Exact(change(value)),
            Value::AtLeast(value) => Value::AtLeast(change(value)),
            other => other,
        }
    }

    /// Whether it is above a limit; `None` where a bound below the limit leaves that open.
    pub fn is_above(self, limit: f64) -> Option<bool> {
        match self {
            Value::Exact(value) => Some(value > limit),
            Value::AtLeast(value) => (value > limit).then_some(true),
            Value::Never { tried } => (tried >= limit).then_some(true),
            Value::NotReached => Some(true),
        }
    }

    /// The order of two values; `None` where it is unknown, which counts as a tie.
    pub fn known_order(&self, other: &Value) -> Option<Ordering> {
        match (self.bound(), other.bound()) {
            (Bound::Exact(a), Bound::Exact(b)) => Some(a.total_cmp(&b)),
            (Bound::Above(a), Bound::Exact(b)) => (b <= a).then_some(Ordering::Greater),
            (Bound::Exact(a), Bound::Above(b)) => (a <= b).then_some(Ordering::Less),
            (Bound::Above(_), Bound::Above(_)) => None,
        }
    }

    /// An order of all values, in which a bound stands right above its number: for sorting only.
    pub fn sort_order(&self, other: &Value) -> Ordering {
        let key = |value: &Value| match value.bound() {
            Bound::Exact(value) => (value, false),
            Bound::Above(value) => (value, true),
        };
        let (a, b) = (key(self), key(other));
        a.0.total_cmp(&b.0).then(a.1.cmp(&b.1))
    }

    fn bound(self) -> Bound {
        match self {
            Value::Exact(value) => Bound::Exact(value),
            Value::AtLeast(value) => Bound::Above(value),
            Value::Never { tried } => Bound::Above(tried),
            Value::NotReached => Bound::Above(f64::MAX),
        }
    }
}

enum Bound {
    Exact(f64),
    Above(f64),
}

/// For spreadsheets: a number, `>=` and a number, or words.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Exact(value) => write!(f, "{value}"),
            Value::AtLeast(value) => write!(f, ">={value}"),
            Value::Never { tried } => write!(f, "never ({tried} tried)"),
            Value::NotReached => f.write_str("not reached"),
        }
    }
}

/// JSON: a number, or an object that names what it is.
impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match *self {
            Value::Exact(value) => serializer.serialize_f64(value),
            Value::AtLeast(value) => serializer.collect_map([("at_least", value)]),
            Value::Never { tried } => serializer.collect_map([("never_up_to", tried)]),
            Value::NotReached => serializer.serialize_str("not reached"),
        }
    }
}

/// The same, read again.
impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = serde_json::Value::deserialize(deserializer)?;
        let number = |json: &serde_json::Value| json.as_f64();
        let known = [number(&json).map(Value::Exact), number(&json["at_least"]).map(Value::AtLeast)];
        let open = number(&json["never_up_to"]).map(|tried| Value::Never { tried });
        let not_reached = (json == "not reached").then_some(Value::NotReached);
        let value = known.into_iter().flatten().next().or(open).or(not_reached);
        value.ok_or_else(|| D::Error::custom(format!("{json} is not a value")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Value::{AtLeast, Exact, Never, NotReached};

    #[test]
    fn what_is_written_is_read_again_and_a_plain_number_is_exact() {
        for value in [Exact(50.4), AtLeast(1080.5), Never { tried: 64.0 }, NotReached] {
            let written = serde_json::to_string(&value).unwrap();
            assert_eq!(serde_json::from_str::<Value>(&written).unwrap(), value, "{written}");
        }
        assert_eq!(serde_json::from_str::<Value>("50").unwrap(), Exact(50.0));
        assert!(serde_json::from_str::<Value>("\"never\"").is_err());
    }

    #[test]
    fn the_order_of_values_is_known_only_where_bounds_leave_no_doubt() {
        let cases = [
            (Exact(1.0), Exact(2.0), Some(Ordering::Less)),
            (Exact(400.0), AtLeast(504.0), Some(Ordering::Less)),
            (Exact(600.0), AtLeast(504.0), None),
            (AtLeast(504.0), AtLeast(900.0), None),
            (Exact(64.0), Never { tried: 64.0 }, Some(Ordering::Less)),
            (Never { tried: 64.0 }, Never { tried: 64.0 }, None),
            (NotReached, Exact(1e9), Some(Ordering::Greater)),
            (NotReached, NotReached, None),
        ];
        for (a, b, order) in cases {
            assert_eq!(a.known_order(&b), order, "{a:?} {b:?}");
            assert_eq!(b.known_order(&a), order.map(Ordering::reverse), "{b:?} {a:?}");
        }
    }

    #[test]
    fn a_bound_is_above_a_limit_only_if_it_lies_there() {
        assert_eq!(AtLeast(504.0).is_above(100.0), Some(true));
        assert_eq!(AtLeast(504.0).is_above(1000.0), None);
        assert_eq!((Exact(100.0).is_above(100.0), NotReached.is_above(1e6)), (Some(false), Some(true)));
    }

    #[test]
    fn programs_can_tell_a_number_from_a_bound_and_from_never() {
        let json = |value: Value| serde_json::to_string(&value).unwrap();
        assert_eq!(json(Exact(1.5)), "1.5");
        assert_eq!(json(AtLeast(504.0)), r#"{"at_least":504.0}"#);
        assert_eq!(json(Never { tried: 64.0 }), r#"{"never_up_to":64.0}"#);
        assert_eq!(json(NotReached), r#""not reached""#);
    }
}
