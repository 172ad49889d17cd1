//! Plots for docs/benchmarks.md, as SVG.

use std::error::Error;
use std::ops::Range;
use std::path::Path;

use plotters::coord::Shift;
use plotters::coord::combinators::IntoLogRange;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::document::{digits, grouped};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Colours that people with colour blindness can distinguish. (Okabe and Ito)
pub const BLUE: RGBColor = RGBColor(0, 114, 178);
pub const VERMILION: RGBColor = RGBColor(213, 94, 0);
pub const SKY: RGBColor = RGBColor(86, 180, 233);
pub const AMBER: RGBColor = RGBColor(230, 159, 0);
/// For comparison.
pub const GREY: RGBColor = RGBColor(120, 120, 120);

const FRAME: RGBColor = RGBColor(200, 200, 200);

/// The place of the values of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    Above,
    Below,
    Hidden,
}

#[derive(Clone, Debug)]
pub struct Line {
    /// The name in the legend.
    pub name: String,
    pub colour: RGBColor,
    pub points: Vec<(f64, f64)>,
    pub values: Values,
}

/// One diagram of lines with two logarithmic axes.
#[derive(Clone, Debug)]
pub struct Panel {
    pub caption: String,
    /// The label of the axis, with its unit.
    pub x: String,
    pub y: String,
    /// The range of y.
    pub span: Range<f64>,
    pub lines: Vec<Line>,
}

/// A range from below the smallest value to above the largest.
pub fn span(values: impl IntoIterator<Item = f64>) -> Range<f64> {
    let ends = |(least, most): (f64, f64), value: f64| (least.min(value), most.max(value));
    let (least, most) = values.into_iter().fold((f64::MAX, 0f64), ends);
    least * 0.5..most * 2.0
}

pub fn draw_lines(path: &Path, size: (u32, u32), grid: (usize, usize), panels: &[Panel]) -> Result<()> {
    let root = SVGBackend::new(path, size).into_drawing_area();
    root.fill(&WHITE)?;
    for (panel, area) in panels.iter().zip(root.split_evenly(grid)) {
        panel.draw(&area)?;
    }
    Ok(root.present()?)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const TITLE: i32 = 34;
const LEGEND: i32 = 22;
/// Pixels of a coloured box in the legend, and between two entries.
const SAMPLE: i32 = 18;
const GAP: i32 = 14;
const LETTER: f64 = 6.4;

fn font(size: i32, colour: RGBColor, horizontal: HPos, vertical: VPos) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&colour).pos(Pos::new(horizontal, vertical))
}

fn entry_width(name: &str) -> i32 {
    SAMPLE + 6 + (name.len() as f64 * LETTER) as i32 + GAP
}

/// Divides the legend into lines that are not wider than the area.
fn lines_of(legend: &[(String, RGBColor)], width: i32) -> Vec<&[(String, RGBColor)]> {
    let (mut lines, mut first, mut used) = (Vec::new(), 0, 0);
    for (at, (name, _)) in legend.iter().enumerate() {
        if used + entry_width(name) > width && at > first {
            lines.push(&legend[first..at]);
            (first, used) = (at, 0);
        }
        used += entry_width(name);
    }
    lines.push(&legend[first..]);
    lines
}

/// Draws title and legend. Returns the area below them.
fn head<'a>(area: &Area<'a>, caption: &str, legend: &[(String, RGBColor)]) -> Result<Area<'a>> {
    let width = area.dim_in_pixel().0 as i32;
    let lines = lines_of(legend, width);
    let (head, rest) = area.split_vertically(TITLE + LEGEND * lines.len() as i32);
    let middle = width / 2;
    head.draw(&Text::new(caption.to_owned(), (middle, TITLE / 2 + 4), font(20, BLACK, HPos::Center, VPos::Center)))?;
    for (at, line) in lines.into_iter().enumerate() {
        let mut left = middle - line.iter().map(|(name, _)| entry_width(name)).sum::<i32>() / 2;
        let y = TITLE + LEGEND * at as i32 + LEGEND / 2;
        for (name, colour) in line {
            head.draw(&Rectangle::new([(left, y - 5), (left + SAMPLE, y + 5)], colour.filled()))?;
            let style = font(13, BLACK, HPos::Left, VPos::Center);
            head.draw(&Text::new(name.clone(), (left + SAMPLE + 6, y), style))?;
            left += entry_width(name);
        }
    }
    Ok(rest)
}

/// Powers of ten. If these are few, also two and five times each.
fn ticks(span: &Range<f64>) -> Vec<f64> {
    let powers = || (-9..=9).map(|power| 10f64.powi(power));
    let within = |ticks: Vec<f64>| ticks.into_iter().filter(|tick| span.contains(tick)).collect::<Vec<_>>();
    let tens = within(powers().collect());
    if tens.len() > 2 { tens } else { within(powers().flat_map(|ten| [ten, 2.0 * ten, 5.0 * ten]).collect()) }
}

fn number(tick: f64) -> String {
    // Without digits from rounding.
    if tick < 1.0 { ((tick * 1e9).round() / 1e9).to_string() } else { grouped(tick.round() as u64) }
}

/// Suppresses the labels of the library, because [`Panel::draw`] writes its own.
fn unlabelled(_: &f64) -> String {
    String::new()
}

impl Panel {
    fn draw(&self, area: &Area<'_>) -> Result<()> {
        let legend: Vec<_> = self.lines.iter().map(|line| (line.name.clone(), line.colour)).collect();
        let area = head(area, &self.caption, &legend)?;
        let mut xs: Vec<f64> = self.lines.iter().flat_map(|line| line.points.iter().map(|(x, _)| *x)).collect();
        xs.sort_by(f64::total_cmp);
        xs.dedup();
        let (first, last) = (*xs.first().ok_or("a panel without points")?, *xs.last().ok_or("a panel without points")?);
        // Space for the first and the last point and their values.
        let room = (last / first).powf(0.08).max(1.1);
        let (left, right, bottom, top) = (first / room, last * room, self.span.start, self.span.end);
        let mut chart = ChartBuilder::on(&area)
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(60)
            .build_cartesian_2d((left..right).log_scale(), (bottom..top).log_scale())?;
        let mut mesh = chart.configure_mesh();
        mesh.disable_mesh().set_all_tick_mark_size(0).x_desc(&self.x).y_desc(&self.y);
        mesh.x_label_formatter(&unlabelled).y_label_formatter(&unlabelled).draw()?;
        let (below, beside) = (font(12, BLACK, HPos::Center, VPos::Top), font(12, BLACK, HPos::Right, VPos::Center));
        for x in &xs {
            chart.draw_series([PathElement::new([(*x, bottom), (*x, top)], FRAME)])?;
            chart.draw_series([EmptyElement::at((*x, bottom)) + Text::new(number(*x), (0, 6), below.clone())])?;
        }
        for y in ticks(&self.span) {
            chart.draw_series([PathElement::new([(left, y), (right, y)], FRAME)])?;
            chart.draw_series([EmptyElement::at((left, y)) + Text::new(number(y), (-6, 0), beside.clone())])?;
        }
        for Line { colour, points, values, .. } in &self.lines {
            chart.draw_series(LineSeries::new(points.clone(), colour.stroke_width(2)))?;
            chart.draw_series(points.iter().map(|point| Circle::new(*point, 4, colour.filled())))?;
            let (shift, vertical) = match values {
                Values::Above => (-8, VPos::Bottom),
                Values::Below => (8, VPos::Top),
                Values::Hidden => continue,
            };
            let style = font(12, *colour, HPos::Center, vertical);
            let written = points
                .iter()
                .map(|point| EmptyElement::at(*point) + Text::new(digits(point.1), (0, shift), style.clone()));
            chart.draw_series(written)?;
        }
        Ok(())
    }
}

/// One diagram of horizontal bars in groups, on a logarithmic axis.
#[derive(Clone, Debug)]
pub struct Bars {
    pub caption: String,
    /// The label of the axis, with its unit.
    pub x: String,
    /// The name and colour of each bar of a group.
    pub series: Vec<(String, RGBColor)>,
    /// From top to bottom: the name of the group, and a value for each series.
    pub groups: Vec<(String, Vec<Option<f64>>)>,
}

/// The share of a group's height that all its bars take.
const FILLED: f64 = 0.84;

pub fn draw_bars(path: &Path, size: (u32, u32), diagrams: &[Bars]) -> Result<()> {
    let root = SVGBackend::new(path, size).into_drawing_area();
    root.fill(&WHITE)?;
    for (bars, area) in diagrams.iter().zip(root.split_evenly((1, diagrams.len()))) {
        bars.draw(&area)?;
    }
    Ok(root.present()?)
}

impl Bars {
    fn draw(&self, area: &Area<'_>) -> Result<()> {
        let area = head(area, &self.caption, &self.series)?;
        let Range { start, end } = span(self.groups.iter().flat_map(|(_, values)| values.iter().flatten().copied()));
        // Space for the values at the ends of the bars.
        let (end, bottom) = (end * 1.5, -(self.groups.len() as f64));
        let mut chart = ChartBuilder::on(&area)
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(120)
            .build_cartesian_2d((start..end).log_scale(), bottom..0.0)?;
        let mut mesh = chart.configure_mesh();
        mesh.disable_mesh().set_all_tick_mark_size(0).x_desc(&self.x);
        mesh.x_label_formatter(&unlabelled).y_label_formatter(&unlabelled).draw()?;
        let below = font(12, BLACK, HPos::Center, VPos::Top);
        for x in ticks(&(start..end)) {
            chart.draw_series([PathElement::new([(x, bottom), (x, 0.0)], FRAME)])?;
            chart.draw_series([EmptyElement::at((x, bottom)) + Text::new(number(x), (0, 6), below.clone())])?;
        }
        let height = FILLED / self.series.len() as f64;
        for (row, (name, values)) in self.groups.iter().enumerate() {
            let middle = -(row as f64) - 0.5;
            let style = font(14, BLACK, HPos::Right, VPos::Center);
            chart.draw_series([EmptyElement::at((start, middle)) + Text::new(name.clone(), (-8, 0), style)])?;
            let there = values.iter().zip(&self.series).filter_map(|(value, (_, colour))| Some(((*value)?, *colour)));
            let there: Vec<(f64, RGBColor)> = there.collect();
            let mut top = middle + height * there.len() as f64 / 2.0;
            for (value, colour) in there {
                let mut bar = Rectangle::new([(start, top), (value, top - height)], colour.filled());
                bar.set_margin(1, 1, 0, 0);
                chart.draw_series([bar])?;
                let at = (value, top - height / 2.0);
                let style = font(12, BLACK, HPos::Left, VPos::Center);
                chart.draw_series([EmptyElement::at(at) + Text::new(digits(value), (5, 0), style)])?;
                top -= height;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first of five entries began outside of the picture.
    #[test]
    fn a_legend_that_is_too_wide_has_several_lines() {
        let legend: Vec<_> = (0..5).map(|number| (format!("a name, number {number}"), BLACK)).collect();
        let entry = entry_width(&legend[0].0);
        assert_eq!(lines_of(&legend, 5 * entry).len(), 1);
        for width in [1, entry, 3 * entry, 5 * entry - 1] {
            let lines = lines_of(&legend, width);
            assert_eq!(lines.concat(), legend, "an entry is lost");
            assert!(lines.iter().all(|line| line.len() == 1 || line.len() as i32 * entry <= width));
        }
        assert_eq!(lines_of(&legend, 3 * entry).iter().map(|line| line.len()).collect::<Vec<_>>(), [3, 2]);
    }
}
