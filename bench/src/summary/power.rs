//! What the comparisons of a null round's kind would find, as a table.

use crate::metrics::{Numbers, Role};
use crate::report::{Cell, Column, Line, Table, significant};
use crate::round::Round;
use crate::verdict::noise::Noise;
use crate::verdict::{null, power};

/// The table of a null round: for each family, the change that is found in nine of ten cases.
pub fn table(round: &Round, numbers: &Numbers) -> Table {
    let trials = round.header.settings.trials as usize;
    let noise = Noise::from_null(&null::within(numbers), String::new());
    let powers = power::of(numbers, &noise, trials, round.header.settings.seed);
    let line = |power: &power::Power| {
        let change = match (power.family.role, power.factor) {
            (_, None) => "none that was tried".to_owned(),
            (Role::Threshold, Some(_)) => "x 2, the least that was tried".to_owned(),
            (_, Some(factor)) => format!("x {}", significant(factor)),
        };
        let cells = [power.family.name.to_string(), power.cells.to_string(), change, format!("{:.0} %", power.share * 100.0)];
        Line { group: None, cells: cells.map(Cell::words).into() }
    };
    Table {
        name: "power",
        title: format!("The change of a median that {trials} trials on each side find in nine of ten cases, by family of metrics"),
        columns: vec![
            Column::words("metric"),
            Column::number("cells"),
            Column::number("change"),
            Column::number("found in"),
        ],
        lines: powers.iter().map(line).collect(),
        notes: vec![
            "both sides are drawn from the trials of servers that were measured twice; one cell of the family changes, the others do not".into(),
            "latencies below 2 ms are left out: no difference of them is claimed".into(),
        ],
        ..Table::default()
    }
}
