//! Tables as values, and their writers: terminal, Markdown, CSV, JSON and SVG. A cell keeps its number, unit and interval until it is
//! written.

mod cell;
mod figure;
mod picture;
mod svg;
mod table;
mod terminal;
mod text;
mod view;

pub use cell::{Absence, Cell, Grade, Mark, Quantity};
pub use figure::{Counted, Figure, Places, Point, Scale, Series};
pub use picture::waterfall;
pub use svg::svg;
pub use table::{Column, Group, Legend, Line, Standing, Table, render};
pub use terminal::{Terminal, wrap};
pub use text::{count, significant, value_in_words, value_text};
pub use view::{Trials, View};

/// A way to write tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For a terminal
    Text,
    /// For a page
    Markdown,
    /// For a spreadsheet
    Csv,
    /// For a program
    Json,
}
