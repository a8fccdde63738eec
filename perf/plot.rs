//! Plots as SVG: bars of medians with their spread, and curves by percentile.
//!
//! Owns nothing. Called by `main` behind each work. Rule: logarithmic axes where daemons differ by
//! orders of magnitude, and the same colour for the same kind of daemon in every plot.

use std::path::Path;

use plotters::prelude::*;

use crate::daemon::{Subject, Variant};
use crate::rounds::{Finished, Measured, Metric};
use crate::{Outcome, fail};

const SIZE: (u32, u32) = (900, 440);
const FONT: &str = "sans-serif";
/// 2 is the median, 100 the slowest hundredth.
const BY_PERCENTILE: &str = "1 / (1 - percentile)";

/// stickring stands out; HAProxy's versions are shades.
fn colour(subject: &Subject, number: usize) -> RGBColor {
    match (subject.ours, subject.variant) {
        (true, Variant::Plain) => return RGBColor(0xd9, 0x5f, 0x02),
        (true, _) => return RGBColor(0xf2, 0xa6, 0x5e),
        (false, _) => {}
    }
    let shade = 0x50 + (number as u8 % 6) * 0x14;
    RGBColor(shade, shade + 0x0c, shade + 0x28)
}

fn plotting<T>(result: Result<T, impl std::fmt::Display>) -> Outcome<T> {
    result.or_else(|e| fail(format!("a plot could not be drawn: {e}")))
}

/// Medians of one metric, one bar a subject, whiskers from least to greatest.
fn bars(done: &Finished, metric: &Metric, file: &Path) -> Outcome<()> {
    let bars: Vec<_> = done
        .measured
        .iter()
        .filter_map(|m| Some((&m.subject, m.spread(metric.name)?)))
        .filter(|(_, s)| s.min > 0.0)
        .collect();
    if bars.is_empty() {
        return Ok(());
    }
    let least = bars.iter().map(|(_, s)| s.min).fold(f64::MAX, f64::min);
    let greatest = bars.iter().map(|(_, s)| s.max).fold(0.0, f64::max);
    let area = SVGBackend::new(file, SIZE).into_drawing_area();
    plotting(area.fill(&WHITE))?;
    let better = if metric.more_is_better { "more is better" } else { "less is better" };
    let mut chart = plotting(
        ChartBuilder::on(&area)
            .caption(format!("{}: {} ({better})", done.id, metric.name), (FONT, 20))
            .margin(12)
            .margin_right(24)
            .x_label_area_size(36)
            .y_label_area_size(76)
            .build_cartesian_2d(0.0..bars.len() as f64, (least * 0.5..greatest * 1.6).log_scale()),
    )?;
    let names: Vec<&str> = bars.iter().map(|(s, _)| s.name.as_str()).collect();
    let name_at = |x: &f64| {
        let at = (*x - 0.5).round();
        let here = (x - 0.5 - at).abs() < 0.01 && at >= 0.0;
        if here { names.get(at as usize).copied().unwrap_or("").to_owned() } else { String::new() }
    };
    plotting(
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(2 * bars.len() + 1)
            .x_label_formatter(&name_at)
            .y_label_formatter(&|y| crate::report::number(*y))
            .draw(),
    )?;
    for (i, (subject, s)) in bars.iter().enumerate() {
        let (x, fill) = (i as f64, colour(subject, i).filled());
        let bar = Rectangle::new([(x + 0.2, least * 0.5), (x + 0.8, s.median)], fill);
        let whisker = PathElement::new([(x + 0.5, s.min), (x + 0.5, s.max)], BLACK);
        let text = Text::new(
            crate::report::number(s.median),
            (x + 0.3, s.max * 1.09),
            (FONT, 14).into_font(),
        );
        plotting(chart.draw_series([bar]))?;
        plotting(chart.draw_series([whisker]))?;
        plotting(chart.draw_series([text]))?;
    }
    plotting(area.present())
}

/// All plots of a work, into `folder`.
pub fn all(done: &Finished, folder: &Path) -> Outcome<()> {
    let letters = |c: char| if c.is_alphanumeric() { c } else { '-' };
    let file = |what: &str, more: &str| {
        let what: String = what.chars().map(letters).collect();
        folder.join(format!("{}-{what}{more}.svg", done.id))
    };
    for metric in done.metrics.iter().filter(|m| m.plotted) {
        bars(done, metric, &file(metric.name, ""))?;
    }
    for metric in done.metrics.iter().filter(|m| m.histogram) {
        let title = format!("{}: {}, all runs", done.id, metric.name);
        let lines = |m: &Measured| m.percentiles(metric.name).map(|p| p.curve());
        curves(done, &title, (BY_PERCENTILE, metric.name), lines, &file(metric.name, "-curve"))?;
    }
    for (name, unit) in crate::works::CURVES {
        let title = format!("{}: {name}", done.id);
        curves(done, &title, (BY_PERCENTILE, unit), |m| m.curve(name), &file(name, ""))?;
    }
    Ok(())
}

/// The curve of each subject that has one.
fn curves(
    done: &Finished,
    title: &str,
    axes: (&str, &str),
    of: impl Fn(&Measured) -> Option<Vec<(f64, f64)>>,
    file: &Path,
) -> Outcome<()> {
    let lines: Vec<(&Subject, Vec<(f64, f64)>)> =
        done.measured.iter().filter_map(|m| Some((&m.subject, of(m)?))).collect();
    let points = || lines.iter().flat_map(|(_, c)| c.iter().copied()).filter(|p| p.1 > 0.0);
    if points().count() == 0 {
        return Ok(());
    }
    let bounds = |v: f64, b: (f64, f64)| (b.0.min(v), b.1.max(v));
    let (x_min, x_max) = points().fold((f64::MAX, 0.0), |b, p| bounds(p.0, b));
    let (y_min, y_max) = points().fold((f64::MAX, 0.0), |b, p| bounds(p.1, b));
    let area = SVGBackend::new(file, SIZE).into_drawing_area();
    plotting(area.fill(&WHITE))?;
    let mut chart = plotting(
        ChartBuilder::on(&area)
            .caption(title, (FONT, 20))
            .margin(12)
            .margin_right(24)
            .x_label_area_size(44)
            .y_label_area_size(76)
            .build_cartesian_2d(
                (x_min..x_max.max(x_min * 1.01)).log_scale(),
                (y_min * 0.8..y_max * 1.25).log_scale(),
            ),
    )?;
    plotting(
        chart
            .configure_mesh()
            .x_desc(axes.0)
            .y_desc(axes.1)
            .y_label_formatter(&|y| crate::report::number(*y))
            .x_label_formatter(&|x| crate::report::number(*x))
            .draw(),
    )?;
    for (i, (subject, line)) in lines.iter().enumerate() {
        let stroke = colour(subject, i).stroke_width(2);
        let line = line.iter().copied().filter(|p| p.1 > 0.0);
        plotting(chart.draw_series(LineSeries::new(line, stroke).point_size(2)))?
            .label(subject.name.as_str())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], stroke));
    }
    let labels = &mut chart.configure_series_labels();
    let labels = labels.background_style(WHITE.mix(0.8)).border_style(BLACK);
    plotting(labels.position(SeriesLabelPosition::UpperLeft).draw())?;
    plotting(area.present())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_has_a_curve_of_every_subject_with_a_run() {
        let folder = tempfile::tempdir().expect("a folder");
        let done = crate::rounds::reloads();
        all(&done, folder.path()).expect("plots");
        let mut files: Vec<_> = std::fs::read_dir(folder.path())
            .expect("a folder")
            .map(|f| f.expect("a file").file_name().into_string().expect("a name"))
            .collect();
        files.sort();
        assert_eq!(files, ["reload-s-curve.svg", "reload-s.svg"]);
        let svg = std::fs::read_to_string(folder.path().join(&files[0])).expect("a plot");
        // A point for each of the 21 runs; both names, the axis and the title.
        assert_eq!(svg.matches("<circle").count(), 21);
        for text in ["stickring", "haproxy 3.4", "1 / (1 - percentile)", "reload: s, all runs"] {
            assert!(svg.contains(text), "{text}");
        }
    }
}
