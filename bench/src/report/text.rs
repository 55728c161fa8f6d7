//! Numbers as text.

use crate::metrics::{Unit, Value};

/// A number of things, whole.
pub fn count(value: f64) -> String {
    // The sum of nothing is -0.
    format!("{:.0}", value + 0.0)
}

/// Three significant digits, without an exponent.
pub fn significant(value: f64) -> String {
    let digits = match value.abs() {
        value if value >= 99.95 => 0,
        value if value >= 9.995 => 1,
        _ => 2,
    };
    let text = format!("{value:.digits$}");
    // What rounds to nothing has no sign.
    if text.trim_start_matches('-').bytes().all(|byte| byte == b'0' || byte == b'.') {
        text.trim_start_matches('-').to_owned()
    } else {
        text
    }
}

/// A value in its unit, as a table shows it; the unit itself stands in the column's head.
pub fn value(value: Value, unit: Unit) -> String {
    match value {
        Value::Exact(number) => number_in(number, unit),
        Value::AtLeast(number) => format!(">= {}", number_in(number, unit)),
        Value::Never { tried } => format!("never ({} tried)", count(tried)),
        Value::NotReached => "frozen".into(),
    }
}

/// The same with the unit, for a sentence.
pub fn value_in_words(of: Value, unit: Unit) -> String {
    let has_unit = of.number().is_some() && !matches!(unit.word(), "" | "%");
    value(of, unit) + &if has_unit { format!(" {}", unit.word()) } else { String::new() }
}

/// A response time in ms, without its unit.
pub fn value_text(time: Value) -> String {
    value(time, Unit::Ms)
}

fn number_in(number: f64, unit: Unit) -> String {
    match unit {
        Unit::Blockers => format!("k={number:.0}"),
        Unit::Count => count(number),
        Unit::Share => format!("{:.0} %", number * 100.0),
        Unit::Ms if number >= 1000.0 => count(number),
        Unit::Ratio => format!("x {}", significant(number)),
        Unit::PerRequest => format!("{number:.2}"),
        _ => significant(number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_significant_digits_and_no_negative_zero() {
        assert_eq!([0.123, 1.0, 12.34, 99.96, 123.4, -0.001].map(significant), ["0.12", "1.00", "12.3", "100", "123", "0.00"]);
    }

    #[test]
    fn each_kind_of_value_has_its_own_words() {
        assert_eq!(value(Value::Exact(98.24), Unit::Ms), "98.2");
        assert_eq!(value(Value::Exact(1604.2), Unit::Ms), "1604");
        assert_eq!(value(Value::AtLeast(1604.2), Unit::Ms), ">= 1604");
        assert_eq!(value(Value::Exact(4.0), Unit::Blockers), "k=4");
        assert_eq!(value(Value::Never { tried: 64.0 }, Unit::Blockers), "never (64 tried)");
        assert_eq!(value(Value::NotReached, Unit::Ms), "frozen");
        assert_eq!(value(Value::Exact(0.5), Unit::Share), "50 %");
        let cases = [
            (Value::AtLeast(1604.2), Unit::Ms, ">= 1604 ms"),
            (Value::NotReached, Unit::Ms, "frozen"),
            (Value::Exact(4.0), Unit::Blockers, "k=4"),
            (Value::Exact(0.5), Unit::Share, "50 %"),
        ];
        for (of, unit, words) in cases {
            assert_eq!(value_in_words(of, unit), words);
        }
    }
}
