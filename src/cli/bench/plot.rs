//! Calls in flight over time, as a picture.

use std::path::Path;

use plotters::prelude::*;

use super::Row;
use crate::cli::exit::Exit;

const COLOURS: [RGBColor; 6] = [
    RGBColor(120, 120, 120),
    RGBColor(31, 119, 180),
    RGBColor(214, 39, 40),
    RGBColor(255, 127, 14),
    RGBColor(44, 160, 44),
    RGBColor(23, 190, 207),
];

/// Draws a line for each round.
pub(super) fn draw(file: &Path, title: &str, rows: &[Row]) -> Result<(), Exit> {
    let wrong =
        |error: &dyn std::fmt::Display| Exit::os(format!("--svg {}: {error}", file.display()));
    let longest = rows.iter().map(|row| row.round.elapsed.as_secs_f64()).fold(0.1, f64::max);
    let peak = rows.iter().map(|row| row.seen.peak).max().unwrap_or(1);
    let area = SVGBackend::new(file, (900, 480)).into_drawing_area();
    area.fill(&WHITE).map_err(|error| wrong(&error))?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..longest * 1.02, 0..peak + peak / 20 + 1)
        .map_err(|error| wrong(&error))?;
    chart
        .configure_mesh()
        .x_desc("seconds since the first call")
        .y_desc("calls in flight")
        .light_line_style(TRANSPARENT)
        .draw()
        .map_err(|error| wrong(&error))?;
    for (row, colour) in rows.iter().zip(COLOURS.iter().cycle()) {
        chart
            .draw_series(LineSeries::new(points(row), colour.stroke_width(2)))
            .map_err(|error| wrong(&error))?
            .label(format!("{} ({} calls)", row.name, row.calls))
            .legend(|(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .background_style(WHITE)
        .border_style(RGBColor(200, 200, 200))
        .draw()
        .map_err(|error| wrong(&error))?;
    area.present().map_err(|error| wrong(&error))
}

/// Seconds since the round began, and calls in flight from then on: the moments at which that
/// changed, each with what was before.
fn points(row: &Row) -> Vec<(f64, u32)> {
    let mut points = Vec::new();
    let mut last = 0;
    for (at, running) in &row.seen.samples {
        let Some(since) = at.checked_sub(row.round.began_at) else { continue };
        let seconds = since as f64 / 1e3;
        if *running != last || points.is_empty() {
            points.extend([(seconds, last), (seconds, *running)]);
            last = *running;
        }
    }
    points
}
