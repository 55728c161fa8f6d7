//! Figures for pages, as SVG.

use super::Figure;
use super::figure::Point;
use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged, ValueFormatter};
use plotters::prelude::*;
use std::ops::Range;

/// Width and height in pixels.
const SIZE: (u32, u32) = (860, 420);
/// The least height: names of more lines than this make it taller.
const NAMES: u32 = 13;
/// Pixels between two names.
const NAME_HEIGHT: u32 = 26;
/// Colours that colour-blind readers can tell apart (Okabe and Ito, 2008).
const COLORS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(213, 94, 0),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(90, 90, 90),
];
const FONT: &str = "sans-serif";

/// Draws a figure. Limits are dashed, and so are lines once the colours are used up.
///
/// # Errors
/// The library cannot draw it.
pub fn svg(figure: &Figure) -> Result<String> {
    let mut svg = String::new();
    {
        let lines = u32::try_from(figure.series.len()).unwrap_or(u32::MAX).min(100);
        let size = (SIZE.0, SIZE.1 + NAME_HEIGHT * lines.saturating_sub(NAMES));
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        draw(figure, &area).map_err(|error| anyhow!("the figure {} cannot be drawn: {error}", figure.name))?;
    }
    Ok(svg)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;

fn draw(figure: &Figure, area: &Area<'_>) -> Drawn {
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(area);
    chart.caption(&figure.title, (FONT, 15)).margin(10).margin_right(230).x_label_area_size(42).y_label_area_size(74);
    let (across, up) = (across(figure), up(figure));
    if figure.y.is_log {
        lines(figure, area, &mut chart.build_cartesian_2d(across, up.log_scale())?)?;
    } else {
        lines(figure, area, &mut chart.build_cartesian_2d(across, up)?)?;
    }
    area.present()
}

fn lines<'a, Y>(figure: &Figure, area: &Area<'a>, chart: &mut ChartContext<'a, SVGBackend<'a>, Cartesian2d<Ticks, Y>>) -> Drawn
where
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let range = across(figure).range;
    let word = |at: &f64| figure.x.ticks.iter().find(|(tick, _)| tick == at).map_or(String::new(), |(_, word)| word.clone());
    let (unit, height) = (figure.y.unit, up(figure));
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .x_labels(figure.x.ticks.len())
        .x_label_formatter(&word)
        .y_label_formatter(&|value| amount(*value, unit))
        .x_desc(&figure.x.label)
        .y_desc(&figure.y.label)
        .label_style((FONT, 13))
        .draw()?;
    let grey = ShapeStyle::from(&RGBColor(150, 150, 150)).stroke_width(1);
    for (limit, word) in figure.y.limits.iter().filter(|(limit, _)| height.contains(limit)) {
        chart.draw_series(DashedLineSeries::new([(range.start, *limit), (range.end, *limit)], 4, 4, grey))?;
        let word = EmptyElement::at((range.start, *limit)) + Text::new(word.clone(), (5, -13), (FONT, 11));
        chart.draw_series(std::iter::once(word))?;
    }
    for (number, (mark, word)) in figure.x.marks.iter().enumerate() {
        chart.draw_series(DashedLineSeries::new([(*mark, height.start), (*mark, height.end)], 2, 4, grey))?;
        // Neighbours stand at two heights, since they may be close.
        let word = EmptyElement::at((*mark, height.end)) + Text::new(word.clone(), (3, 12 * (number as i32 % 2)), (FONT, 11));
        chart.draw_series(std::iter::once(word))?;
    }
    for (number, one) in figure.series.iter().enumerate() {
        let color = COLORS[number % COLORS.len()];
        let within = |point: &Point| (point.x, point.y.clamp(height.start, height.end));
        // What was not measured is not joined.
        for part in one.points.chunk_by(|a, b| are_neighbours(figure, a.x, b.x)).filter(|part| part.len() > 1) {
            let points = part.iter().map(within);
            if number < COLORS.len() {
                chart.draw_series(LineSeries::new(points, color.stroke_width(2)))?;
            } else {
                chart.draw_series(DashedLineSeries::new(points, 6, 4, color.stroke_width(2)))?;
            }
        }
        // Bounds are hollow.
        chart.draw_series(one.points.iter().map(|point| {
            let style = if point.is_bound { color.stroke_width(1) } else { color.filled() };
            Circle::new(within(point), 3, style)
        }))?;
        // The name stands in the margin beside the lines, in their order.
        let at = (SIZE.0 as i32 - 220, 60 + NAME_HEIGHT as i32 * number as i32);
        let parts: &[(i32, i32)] = if number < COLORS.len() { &[(0, 16)] } else { &[(0, 6), (10, 16)] };
        for (from, to) in parts {
            area.draw(&Rectangle::new([(at.0 + from, at.1 + 5), (at.0 + to, at.1 + 9)], color.filled()))?;
        }
        area.draw(&Text::new(one.name.clone(), (at.0 + 20, at.1), (FONT, 13)))?;
    }
    if figure.series.iter().flat_map(|one| &one.points).any(|point| point.is_bound) {
        let at = (SIZE.0 as i32 - 220, SIZE.1 as i32 - 30);
        let at = (at.0, at.1.max(60 + NAME_HEIGHT as i32 * figure.series.len() as i32));
        area.draw(&Text::new("hollow: the true value is larger", at, (FONT, 11)))?;
    }
    Ok(())
}

/// No place of the figure is between these two.
fn are_neighbours(figure: &Figure, a: f64, b: f64) -> bool {
    let ticks = figure.x.ticks.iter().map(|(at, _)| *at);
    let points = figure.series.iter().flat_map(|one| &one.points).map(|point| point.x);
    !ticks.chain(points).any(|at| a < at && at < b)
}

fn amount(value: f64, unit: &str) -> String {
    match unit {
        "ms" if value >= 1000.0 => format!("{} s", value / 1e3),
        "%" => format!("{} %", (value * 100.0).round()),
        _ => format!("{value} {unit}").trim_end().to_owned(),
    }
}

/// The range of the vertical axis: whole powers of ten around all numbers, or from zero on.
fn up(figure: &Figure) -> Range<f64> {
    let values = || figure.series.iter().flat_map(|one| &one.points).map(|point| point.y);
    let (low, high) = (values().fold(f64::MAX, f64::min), values().fold(0.0, f64::max));
    match (figure.y.is_log, figure.y.unit) {
        (true, _) if high > 0.0 => 10_f64.powf(low.max(1e-3).log10().floor())..10_f64.powf(high.log10().ceil()).max(1.0),
        (true, _) => 0.1..1.0,
        (false, "%") => 0.0..1.05,
        (false, _) => 0.0..(high * 1.1).max(1.0),
    }
}

/// The horizontal axis: its ticks and marks, and nothing between them.
fn across(figure: &Figure) -> Ticks {
    let at: Vec<f64> = figure.x.ticks.iter().map(|(at, _)| *at).collect();
    let marks = figure.x.marks.iter().map(|(mark, _)| *mark);
    let (low, high) = at.iter().copied().chain(marks).fold((f64::MAX, f64::MIN), |(low, high), at| (low.min(at), high.max(at)));
    let (first, last) = if low <= high { (low, high) } else { (0.0, 1.0) };
    Ticks { range: first..if last > first { last } else { first + 1.0 }, at }
}

/// An axis with ticks at given places.
struct Ticks {
    range: Range<f64>,
    at: Vec<f64>,
}

impl Ranged for Ticks {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let share = (value - self.range.start) / (self.range.end - self.range.start);
        limit.0 + (f64::from(limit.1 - limit.0) * share).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.at.clone()
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::super::figure::{Counted, Places, Scale, Series};
    use super::*;

    fn figure(is_log: bool) -> Figure {
        let line = |name: &str, values: &[f64]| {
            let counted = Counted { valid: 6, all: 6 };
            let point = |(at, y): (usize, &f64)| Point { x: at as f64, y: *y, interval: None, is_bound: false, counted };
            Series { name: name.into(), points: values.iter().enumerate().map(point).collect() }
        };
        Figure {
            name: "p99".into(),
            title: "a title".into(),
            x: Places::even("slow requests", &[0, 1, 4]),
            y: Scale { label: "p99".into(), unit: "ms", is_log, limits: vec![(100.0, "0.1 s".into())] },
            series: vec![line("never & freezes", &[0.1, 0.1, 0.2]), line("one loop", &[0.1, 110.0])],
        }
    }

    #[test]
    fn a_figure_names_every_series_and_is_the_same_each_time() {
        for is_log in [true, false] {
            let drawn = svg(&figure(is_log)).unwrap();
            assert!(drawn.contains("never &amp; freezes") && drawn.contains("one loop") && drawn.contains("a title"), "{drawn}");
            assert_eq!(drawn, svg(&figure(is_log)).unwrap());
        }
    }

    #[test]
    fn a_figure_is_drawn_as_the_golden_file_has_it() {
        let golden = include_str!("../../tests/golden/figure.svg");
        let drawn = svg(&figure(true)).unwrap();
        assert_eq!(drawn, golden, "if the change is meant, this is the new golden file:\n{drawn}");
    }

    #[test]
    fn what_was_not_measured_is_not_joined_and_a_bound_is_explained() {
        let lines = |figure: &Figure| svg(figure).unwrap().matches("<polyline").count();
        let mut gap = figure(true);
        let before = lines(&gap);
        gap.series[0].points.remove(1);
        assert_eq!(lines(&gap), before - 1, "two points beside a gap have no line");
        assert!(!svg(&gap).unwrap().contains("hollow"));
        gap.series[0].points[0].is_bound = true;
        assert!(svg(&gap).unwrap().contains("hollow: the true value is larger"));
    }

    #[test]
    fn no_line_one_point_and_zeros_are_drawn_too() {
        svg(&Figure { series: Vec::new(), ..figure(true) }).unwrap();
        let mut one = figure(true);
        one.x = Places::even("k", &[0]);
        one.series.truncate(1);
        one.series[0].points.truncate(1);
        one.series[0].points[0].y = 0.0;
        svg(&one).unwrap();
        svg(&Figure { y: Scale { is_log: false, ..one.y.clone() }, ..one }).unwrap();
    }
}
