//! Plots for docs/benchmarks.md, as SVG: what every measurement's plots have in common, and nothing of what they show.

use std::error::Error;
use std::ops::Range;
use std::path::Path;

use plotters::coord::combinators::IntoLogRange;
use plotters::prelude::*;

use crate::document::{digits, grouped};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Colours that people with any kind of sight tell apart. (Okabe and Ito)
pub const BLUE: RGBColor = RGBColor(0, 114, 178);
/// As [`BLUE`].
pub const VERMILION: RGBColor = RGBColor(213, 94, 0);
/// As [`BLUE`].
pub const SKY: RGBColor = RGBColor(86, 180, 233);
/// As [`BLUE`].
pub const GREEN: RGBColor = RGBColor(0, 158, 115);
/// As [`BLUE`].
pub const PURPLE: RGBColor = RGBColor(204, 121, 167);
/// As [`BLUE`].
pub const AMBER: RGBColor = RGBColor(230, 159, 0);
/// For what is there to compare with.
pub const GREY: RGBColor = RGBColor(120, 120, 120);

const FRAME: RGBColor = RGBColor(200, 200, 200);

/// Where the values of a line are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// Above the points.
    Above,
    /// Below the points.
    Below,
    /// Nowhere.
    Hidden,
}

/// Points that belong together.
#[derive(Clone, Debug)]
pub struct Line {
    /// For the legend.
    pub name: String,
    /// Of line, points and values.
    pub colour: RGBColor,
    /// x and y.
    pub points: Vec<(f64, f64)>,
    /// Whether the values are written beside the points.
    pub values: Values,
}

/// One diagram of lines, both of its axes logarithmic.
#[derive(Clone, Debug)]
pub struct Panel {
    /// Its title.
    pub caption: String,
    /// What x is, and its unit.
    pub x: String,
    /// What y is, and its unit.
    pub y: String,
    /// From the least to the most that can be seen.
    pub span: Range<f64>,
    /// What is in it.
    pub lines: Vec<Line>,
}

/// From a bit below the least of all to a bit above the most.
pub fn span(values: impl IntoIterator<Item = f64>) -> Range<f64> {
    let ends = |(least, most): (f64, f64), value: f64| (least.min(value), most.max(value));
    let (least, most) = values.into_iter().fold((f64::MAX, 0f64), ends);
    least * 0.5..most * 2.0
}

/// Draws panels in that many rows and columns.
pub fn draw_lines(path: &Path, size: (u32, u32), grid: (usize, usize), panels: &[Panel]) -> Result<()> {
    let root = SVGBackend::new(path, size).into_drawing_area();
    root.fill(&WHITE)?;
    for (panel, area) in panels.iter().zip(root.split_evenly(grid)) {
        panel.draw(&area)?;
    }
    Ok(root.present()?)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

impl Panel {
    fn draw(&self, area: &Area<'_>) -> Result<()> {
        let xs = || self.lines.iter().flat_map(|line| line.points.iter().map(|(x, _)| *x));
        let (first, last) = xs().fold((f64::MAX, 0f64), |(least, most), x| (least.min(x), most.max(x)));
        // Room for the first and the last point, and what is written there.
        let room = (last / first).powf(0.06).max(1.1);
        let mut chart = ChartBuilder::on(area)
            .caption(&self.caption, ("sans-serif", 20))
            .margin(12)
            .x_label_area_size(36)
            .y_label_area_size(60)
            .build_cartesian_2d((first / room..last * room).log_scale(), self.span.clone().log_scale())?;
        chart
            .configure_mesh()
            .x_desc(&self.x)
            .y_desc(&self.y)
            .x_labels(5)
            .y_labels(6)
            .x_label_formatter(&|x| grouped(x.round() as u64))
            .y_label_formatter(&tick)
            .light_line_style(WHITE)
            .draw()?;
        for Line { name, colour, points, values } in &self.lines {
            let colour = *colour;
            chart
                .draw_series(LineSeries::new(points.clone(), colour.stroke_width(2)))?
                .label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
            chart.draw_series(points.iter().map(|point| Circle::new(*point, 4, colour.filled())))?;
            let shift = match values {
                Values::Above => -20,
                Values::Below => 8,
                Values::Hidden => continue,
            };
            for (at, (x, y)) in points.iter().enumerate() {
                let style = ("sans-serif", 12).into_font().color(&colour);
                let left = if at + 1 == points.len() { -26 } else { -10 };
                chart.draw_series([EmptyElement::at((*x, *y)) + Text::new(digits(*y), (left, shift), style)])?;
            }
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE)
            .border_style(FRAME)
            .label_font(("sans-serif", 13))
            .draw()?;
        Ok(())
    }
}

/// A power of ten, mostly.
fn tick(value: &f64) -> String {
    if *value < 1.0 { value.to_string() } else { grouped(value.round() as u64) }
}

/// One diagram of horizontal bars in groups, on a logarithmic axis.
#[derive(Clone, Debug)]
pub struct Bars {
    /// Its title.
    pub caption: String,
    /// What the length is, and its unit.
    pub x: String,
    /// The bars of each group, by their names and colours.
    pub series: Vec<(String, RGBColor)>,
    /// From top to bottom: a name, and a value of each series that has one there.
    pub groups: Vec<(String, Vec<Option<f64>>)>,
}

/// How much of a group's height its bars take.
const FILLED: f64 = 0.8;

/// Draws diagrams side by side.
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
        let values = self.groups.iter().flat_map(|(_, values)| values.iter().flatten().copied());
        let Range { start, end } = span(values);
        // Room for the values at the ends of the bars; at the bottom, for the legend.
        let x = (start..end * 2.0).log_scale();
        let rows = self.groups.len() as f64;
        let legend = 0.3 * self.series.len() as f64;
        let mut chart = ChartBuilder::on(area)
            .caption(&self.caption, ("sans-serif", 20))
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(150)
            .build_cartesian_2d(x, (-rows - legend)..0.0)?;
        let name = |y: &f64| {
            let row = (-y - 0.5).round() as usize;
            self.groups.get(row).map(|(name, _)| name.clone()).unwrap_or_default()
        };
        chart
            .configure_mesh()
            .disable_y_mesh()
            .disable_y_axis()
            .x_desc(&self.x)
            .x_label_formatter(&tick)
            .y_labels(0)
            .light_line_style(WHITE)
            .draw()?;
        for row in 0..self.groups.len() {
            let (y, style) = (-(row as f64) - 0.5, ("sans-serif", 14).into_font().color(&BLACK));
            let style = style.pos(plotters::style::text_anchor::Pos::new(
                plotters::style::text_anchor::HPos::Right,
                plotters::style::text_anchor::VPos::Center,
            ));
            chart.draw_series([EmptyElement::at((start, y)) + Text::new(name(&y), (-8, 0), style)])?;
        }
        for (which, (name, colour)) in self.series.iter().enumerate() {
            let colour = *colour;
            let bars = self.groups.iter().enumerate().filter_map(|(row, (_, values))| {
                let there: Vec<usize> = (0..values.len()).filter(|which| values[*which].is_some()).collect();
                let place = there.iter().position(|its| *its == which)?;
                let height = FILLED / there.len() as f64;
                let top = -(row as f64) - (1.0 - FILLED) / 2.0 - height * place as f64;
                Some((values[which]?, top, top - height))
            });
            let bars: Vec<(f64, f64, f64)> = bars.collect();
            chart
                .draw_series(bars.iter().map(|(value, top, bottom)| {
                    let mut bar = Rectangle::new([(start, *top), (*value, *bottom)], colour.filled());
                    bar.set_margin(1, 1, 0, 0);
                    bar
                }))?
                .label(name)
                .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 18, y + 5)], colour.filled()));
            for (value, top, bottom) in bars {
                let style = ("sans-serif", 12).into_font().color(&BLACK);
                let style = style.pos(plotters::style::text_anchor::Pos::new(
                    plotters::style::text_anchor::HPos::Left,
                    plotters::style::text_anchor::VPos::Center,
                ));
                let at = (value, (top + bottom) / 2.0);
                chart.draw_series([EmptyElement::at(at) + Text::new(digits(value), (5, 0), style)])?;
            }
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerRight)
            .background_style(WHITE)
            .border_style(FRAME)
            .label_font(("sans-serif", 13))
            .draw()?;
        Ok(())
    }
}
