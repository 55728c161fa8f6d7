//! A figure for pages: response time against the number of blockers, as SVG.

use crate::metrics::LIMITS_MS;
use anyhow::{Result, anyhow};
use plotters::prelude::*;

/// Width and height in pixels.
const SIZE: (u32, u32) = (860, 420);
/// The range of the time axis, in ms.
const RANGE_MS: (f64, f64) = (0.05, 3000.0);
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

/// A line for each series: a name, and a time in ms for each number of blockers as far as it was measured. The limits that people feel are drawn in.
///
/// # Errors
/// The library cannot draw it.
pub fn curves(title: &str, blockers: &[usize], series: &[(String, Vec<f64>)]) -> Result<String> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let draw = || -> Result<(), DrawingAreaErrorKind<std::io::Error>> {
            area.fill(&WHITE)?;
            let last = blockers.len().saturating_sub(1).max(1) as f64;
            let mut chart = ChartBuilder::on(&area)
                .caption(title, (FONT, 17))
                .margin(10)
                .margin_right(230)
                .x_label_area_size(42)
                .y_label_area_size(74)
                .build_cartesian_2d(0.0..last, (RANGE_MS.0..RANGE_MS.1).log_scale())?;
            chart
                .configure_mesh()
                .light_line_style(WHITE)
                .x_labels(blockers.len())
                .x_label_formatter(&|at| blockers.get(at.round() as usize).map_or(String::new(), ToString::to_string))
                .y_label_formatter(&|ms| if *ms >= 1000.0 { format!("{} s", ms / 1e3) } else { format!("{ms} ms") })
                .x_desc("slow requests at a time")
                .y_desc("response time of / (p99)")
                .label_style((FONT, 13))
                .draw()?;
            for limit in LIMITS_MS.into_iter().filter(|limit| *limit < RANGE_MS.1) {
                let style = ShapeStyle::from(&RGBColor(150, 150, 150)).stroke_width(1);
                chart.draw_series(DashedLineSeries::new([(0.0, limit), (last, limit)], 4, 4, style))?;
            }
            for (number, (name, times)) in series.iter().enumerate() {
                let color = COLORS[number % COLORS.len()];
                let points: Vec<(f64, f64)> =
                    times.iter().enumerate().map(|(at, ms)| (at as f64, ms.clamp(RANGE_MS.0, RANGE_MS.1))).collect();
                // Once the colours are used up, lines are dashed.
                if number < COLORS.len() {
                    chart.draw_series(LineSeries::new(points.iter().copied(), color.stroke_width(2)))?;
                } else {
                    chart.draw_series(DashedLineSeries::new(points.iter().copied(), 6, 4, color.stroke_width(2)))?;
                }
                chart.draw_series(points.iter().map(|point| Circle::new(*point, 3, color.filled())))?;
                // The name stands in the margin beside the curves, in their order.
                let at = (SIZE.0 as i32 - 220, 60 + 26 * number as i32);
                let parts: &[(i32, i32)] = if number < COLORS.len() { &[(0, 16)] } else { &[(0, 6), (10, 16)] };
                for (from, to) in parts {
                    area.draw(&Rectangle::new([(at.0 + from, at.1 + 5), (at.0 + to, at.1 + 9)], color.filled()))?;
                }
                area.draw(&Text::new(name.clone(), (at.0 + 20, at.1), (FONT, 13)))?;
            }
            area.present()
        };
        draw().map_err(|error| anyhow!("the figure cannot be drawn: {error}"))?;
    }
    Ok(svg)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_names_every_series_and_is_the_same_each_time() {
        let series = [("never & freezes".to_owned(), vec![0.1, 0.1, 0.2]), ("one loop".to_owned(), vec![0.1, 110.0])];
        let svg = curves("a title", &[0, 1, 4], &series).unwrap();
        assert!(svg.contains("never &amp; freezes") && svg.contains("one loop") && svg.contains("a title"));
        assert_eq!(svg, curves("a title", &[0, 1, 4], &series).unwrap());
    }
}
